import BlockIO
import Foundation
import HostSystem
import TestSupport
import Testing

@testable import BlockIO

@Suite struct HostFileTests {
  let directory: TemporaryDirectory
  init() throws { directory = try TemporaryDirectory() }

  @Test(
    "a write is shared out by whole pages",
    arguments: [
      (0, 4096, 0, 4096, 0), (0, 4095, 0, 0, 4095), (1, 4095, 4095, 0, 0), (1, 4096, 4095, 0, 1),
      (512, 512, 512, 0, 0), (4000, 9000, 96, 8192, 712), (4096, 12288, 0, 12288, 0),
      (4095, 1, 1, 0, 0), (8192, 0, 0, 0, 0), (4095, 4098, 1, 4096, 1),
    ])
  func splits(offset: Int, count: Int, head: Int, middle: Int, tail: Int) {
    let split = WriteSplit(offset: UInt64(offset), count: count, unit: 4096)
    #expect(split.head == head)
    #expect(split.middle == middle)
    #expect(split.tail == tail)
  }

  /// A file of 8 KiB of data, 8 KiB of hole and 8 KiB of data, cut by another hand to `size` bytes.
  func cutFile(to size: Int, access: HostFile.Access) throws -> HostFile {
    let path = directory.file("cut")
    let maker = try HostFile.create(path, locking: .none)
    for place in [0, 16384] as [UInt64] {
      try maker.put([UInt8](repeating: 7, count: 8192), at: place, intent: .data)
    }
    let role: StorageRole = access == .readWrite ? .active : .backing
    let file = try HostFile.open(path, access: access, locking: .none, role: role)
    truncate(path, off_t(size))
    return file
  }

  @Test(
    "a file that is cut short by another hand fails behind its end, and is read before it",
    arguments: [0, 1, 4096, 8191, 8192, 8193, 16383, 16384, 16385, 24575], [false, true])
  func cutShort(size: Int, isWritable: Bool) throws {
    let file = try cutFile(to: size, access: isWritable ? .readWrite : .readOnly)
    let zeroes = [UInt8](repeating: 0, count: 8192)
    let data = [UInt8](repeating: 7, count: 8192)
    let whole = Array((data + zeroes + data)[..<size])
    #expect(try file.bytes(at: 0, count: size) == whole)
    let error = try #require(throws: StorageError.self) {
      try file.bytes(at: 0, count: size + 1)
    }
    #expect(error.kind == .corrupt)
    #expect(throws: StorageError.self) { try file.bytes(at: UInt64(size), count: 1) }
    // Past where it ever reached there is nothing to be missed.
    #expect(try file.bytes(at: 24576, count: 100) == Array(zeroes[..<100]))
    // What is missing counts as data: nothing may take it for zeroes.
    var place = HostOffset.zero
    var missing: UInt64 = 0
    while let start = try file.nextData(at: place) {
      let end = try #require(try file.nextHole(at: start))
      #expect(end > start)
      missing += end.rawValue - max(start.rawValue, min(end.rawValue, UInt64(size)))
      place = end
    }
    #expect(missing == UInt64(24576 - size))
  }

  @Test("a file that its owner makes shorter or longer is whole")
  func cutByOwner() throws {
    let file = try HostFile.create(directory.file("own"), locking: .none)
    try file.put([1, 2, 3, 4], at: 9000, intent: .data)
    try file.truncate(to: 100)
    #expect(try file.bytes(at: 50, count: 200) == [UInt8](repeating: 0, count: 200))
    try file.truncate(to: 5000)
    try file.writeZeroes(at: HostOffset(6000), length: 10)
    try file.allocate(at: HostOffset(7000), length: 10)
    #expect(try file.bytes(at: 0, count: 9000) == [UInt8](repeating: 0, count: 9000))
    truncate(directory.file("own"), 7005)
    #expect(throws: StorageError.self) { try file.bytes(at: 7000, count: 100) }
  }

  @Test("what is no file is refused before it is opened", arguments: ["/dev/null", "."])
  func notAFile(path: String) {
    let error = #expect(throws: StorageError.self) {
      try HostFile.open(path, access: .readOnly, locking: .none, role: .backing)
    }
    #expect(error == .notAFile(path: path))
  }

  @Test(
    "direct and buffered writes at any alignment read back as one file",
    arguments: [HostFile.PageCache.used, .avoided])
  func mixedDoors(pageCache: HostFile.PageCache) throws {
    var random = Seed.generator("mixedDoors")
    let file = try HostFile.create(directory.file("image"), pageCache: pageCache)
    let size = 1 << 20
    var model = ByteModel(size: size)
    try file.truncate(to: UInt64(size))
    for _ in 0..<600 {
      var offset = Int.random(in: 0..<size - 1, using: &random)
      if random.oneIn(2) { offset &= ~4095 }
      if random.oneIn(3) { offset &= ~511 }
      var count = Int.random(in: 1...(random.oneIn(8) ? 200_000 : 9000), using: &random)
      if random.oneIn(2) { count = (count + 4095) & ~4095 }
      count = min(count, size - offset)
      let range = GuestRange(offset: GuestOffset(UInt64(offset)), length: UInt64(count))
      switch Int.random(in: 0..<10, using: &random) {
      case 0:
        try file.writeZeroes(at: HostOffset(UInt64(offset)), length: UInt64(count))
        model.zero(range)
      case 1..<4:
        let bytes = random.bytes(count)
        try file.put(bytes, at: UInt64(offset), intent: .metadata)
        model.write(bytes, at: offset)
      case 4..<8:
        let bytes = random.bytes(count)
        try file.put(bytes, at: UInt64(offset), intent: .data)
        model.write(bytes, at: offset)
      default:
        let found = try file.bytes(at: UInt64(offset), count: count)
        #expect(model.firstDifference(from: found, at: offset) == nil)
      }
    }
    try file.flush()
    #expect(try file.bytes(at: 0, count: size) == model.bytes)
    let plain = try #require(FileManager.default.contents(atPath: file.path))
    #expect(Array(plain) == model.bytes)
  }

  @Test("data passes the page cache by where the file system lets it")
  func usesDirectIO() throws {
    let file = try HostFile.create(directory.file("image"))
    let isPossible =
      DirectIO(sameAs: file.descriptor.raw, forWriting: true, beside: .used) != nil
    #expect(file.usesDirectIO == isPossible)
    try file.put([UInt8](repeating: 1, count: 8192), at: 0)
    #expect(file.usesDirectIO == isPossible)
    let reader = try HostFile.open(file.path, access: .readOnly, locking: .none, role: .backing)
    #expect(!reader.usesDirectIO)
  }

  @Test("a file in memory has no way past the page cache")
  func isInMemory() throws {
    let path = "/dev/shm/chainfs-test-\(getpid())"
    let file = try HostFile.create(path)
    defer { unlink(path) }
    #expect(!file.usesDirectIO)
    let bytes = (0..<10_000).map { UInt8(truncatingIfNeeded: $0 / 7) }
    try file.put(bytes, at: 4095)
    #expect(try file.bytes(at: 4095, count: bytes.count) == bytes)
  }

  @Test("neighbouring threads, one direct and one buffered, do not lose each other's bytes")
  func neighbours() throws {
    let file = try HostFile.create(directory.file("image"))
    let pages = 64
    try file.truncate(to: UInt64(pages * 8192))
    let workers = try (0..<4).map { index in
      try Worker(name: "writer \(index)") {
        for round in 1...20 {
          for page in 0..<pages where page % 2 == index % 2 {
            let half = UInt64(page * 8192 + index / 2 * 4096)
            // Even threads write whole pages, odd ones two halves that are not pages.
            let bytes = [UInt8](repeating: UInt8(index * 32 + round), count: 4096)
            if index % 2 == 0 {
              try? file.put(bytes, at: half)
            } else {
              try? file.put(Array(bytes[..<1000]), at: half)
              try? file.put(Array(bytes[1000...]), at: half + 1000)
            }
          }
        }
      }
    }
    for worker in workers { worker.join() }
    for page in 0..<pages {
      for half in 0..<2 {
        let found = try file.bytes(at: UInt64(page * 8192 + half * 4096), count: 4096)
        #expect(found.allSatisfy { $0 == UInt8((page % 2 + half * 2) * 32 + 20) })
      }
    }
  }

  @Test("memory that is not aligned is written all the same", arguments: [0, 1, 7, 511, 512])
  func unalignedMemory(shift: Int) throws {
    var random = SeededGenerator(seed: 1)
    let file = try HostFile.create(directory.file("image"))
    let bytes = random.bytes((3 << 20) + shift)
    try file.write(bytes.rawSpan.extracting(shift..<bytes.count), at: .zero)
    #expect(try file.bytes(at: 0, count: 3 << 20) == Array(bytes[shift...]))
  }

  @Test("a read is short at the end only, and empty behind it")
  func shortReads() throws {
    let file = try HostFile.create(directory.file("image"))
    try file.put([1, 2, 3], at: 0)
    var bytes = [UInt8](repeating: 9, count: 5)
    var span = bytes.mutableRawSpan
    #expect(try file.read(into: &span, at: HostOffset(1)) == 2)
    #expect(bytes == [2, 3, 9, 9, 9])
    var more = [UInt8](repeating: 9, count: 5)
    var moreSpan = more.mutableRawSpan
    #expect(try file.read(into: &moreSpan, at: HostOffset(100)) == 0)
    try file.readZeroFilled(into: &moreSpan, at: HostOffset(2))
    #expect(more == [3, 0, 0, 0, 0])
    var last = more
    #expect(
      throws: StorageError.truncated(
        path: file.path, offset: HostOffset(1), wanted: 5, found: 2)
    ) {
      var span = last.mutableRawSpan
      try file.readExactly(into: &span, at: HostOffset(1))
    }
  }

  @Test("holes and data are told apart, and a zeroed range beyond the end grows the file")
  func holes() throws {
    let file = try HostFile.create(directory.file("image"))
    try file.truncate(to: 1 << 20)
    #expect(try file.nextData(at: .zero) == nil)
    try file.put([UInt8](repeating: 1, count: 65536), at: 262_144)
    #expect(try file.nextData(at: .zero) == HostOffset(262_144))
    #expect(try file.nextHole(at: HostOffset(262_144)) == HostOffset(327_680))
    #expect(try file.isHole(at: .zero))
    try file.discard(at: HostOffset(262_144), length: 65536)
    #expect(try file.nextData(at: .zero) == nil)
    #expect(try file.nextHole(at: HostOffset(1 << 20)) == nil)
    try file.writeZeroes(at: HostOffset(1 << 20), length: 5000)
    #expect(try file.size() == (1 << 20) + 5000)
  }

  @Test("the host shares a range where it can, and what it cannot is left to the caller")
  func shares() throws {
    var random = SeededGenerator(seed: 2)
    let source = try HostFile.create(directory.file("source"))
    let target = try HostFile.create(directory.file("target"))
    let bytes = random.bytes(300_000)
    try source.put(bytes, at: 0)
    if try target.share(from: source, at: HostOffset(4096), to: .zero, length: 40_960) {
      #expect(try target.bytes(at: 0, count: 40_960) == Array(bytes[4096..<45_056]))
    } else {
      #expect(try target.size() == 0)
    }
    #expect(try !target.share(from: source, at: HostOffset(100), to: .zero, length: 4096))
    #expect(try !target.share(from: source, at: HostOffset(299_008), to: .zero, length: 4096))
    #expect(try !target.share(from: MemoryStorage(), at: .zero, to: .zero, length: 4096))
  }

  @Test("what is no file is refused, and each refusal has its kind")
  func refusals() throws {
    mkfifo(directory.file("fifo"), 0o600)
    symlink("/nowhere", directory.file("link"))
    func kind(_ body: () throws -> HostFile) -> FailureKind? {
      do {
        _ = try body()
        return nil
      } catch { return (error as? StorageError)?.kind }
    }
    func open(_ name: String) throws -> HostFile {
      try HostFile.open(directory.file(name), access: .readOnly, locking: .qemu, role: .backing)
    }
    #expect(kind { try open("fifo") } == .invalid)
    #expect(kind { try open(".") } == .invalid)
    #expect(kind { try open("missing") } == .notFound)
    #expect(kind { try HostFile.create(directory.file("link")) } == .exists)
    #expect(kind { try HostFile.create(directory.file("fifo")) } == .exists)
    #expect(kind { try HostFile.create("/proc/none/x") } == .notFound)
  }

  @Test("a file that is open for reading, or has become a backing file, takes no writes")
  func readOnly() throws {
    let file = try HostFile.create(directory.file("image"))
    try file.put([1], at: 0)
    file.becomeBacking()
    #expect(throws: StorageError.readOnly(path: file.path)) { try file.put([2], at: 0) }
    try file.flush()
    file.close()
    #expect(throws: StorageError.readOnly(path: file.path)) {
      try file.discard(at: .zero, length: 1)
    }
    let reader = try HostFile.open(
      file.path, access: .readOnly, locking: .qemu, role: .backing)
    #expect(try reader.bytes(at: 0, count: 1) == [1])
    #expect(throws: StorageError.readOnly(path: file.path)) { try reader.put([2], at: 0) }
  }

  @Test("a range beyond the largest file is refused before the host sees it")
  func range() throws {
    let file = try HostFile.create(directory.file("image"))
    for offset in [UInt64.max, UInt64(Int64.max), UInt64(Int64.max) - 1] {
      #expect(throws: StorageError.self) { try file.put([1, 2], at: offset) }
      #expect(throws: StorageError.self) {
        try file.writeZeroes(at: HostOffset(offset), length: 2)
      }
    }
  }
}
