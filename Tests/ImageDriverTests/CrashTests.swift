import BlockIO
import HostSystem
import TestSupport
import Testing

@testable import ImageDriver

/// Storage that lets a test look after every call that changes something.
final class WatchedStorage: BlockStorage {
  let disk: SimulatedDisk
  private let watcher = Monitor<(@Sendable (SimulatedDisk) -> Void)?>(nil)

  init(_ disk: SimulatedDisk) { self.disk = disk }

  func watch(_ body: (@Sendable (SimulatedDisk) -> Void)?) { watcher.withLock { $0 = body } }
  private func look() { watcher.withLock { $0 }?(disk) }

  var path: String { disk.path }
  var isReadOnly: Bool { disk.isReadOnly }
  var identity: StorageIdentity { disk.identity }
  var highestWritten: UInt64 { disk.highestWritten }
  func size() throws(StorageError) -> UInt64 { try disk.size() }
  func allocatedBytes() throws(StorageError) -> UInt64 { try disk.allocatedBytes() }
  func read(into buffer: inout MutableRawSpan, at offset: HostOffset) throws(StorageError) -> Int {
    try disk.read(into: &buffer, at: offset)
  }
  func write(_ bytes: RawSpan, at offset: HostOffset, intent: WriteIntent) throws(StorageError) {
    try disk.write(bytes, at: offset, intent: intent)
    look()
  }
  func writeZeroes(at offset: HostOffset, length: UInt64) throws(StorageError) {
    try disk.writeZeroes(at: offset, length: length)
    look()
  }
  func discard(at offset: HostOffset, length: UInt64) throws(StorageError) {
    try disk.discard(at: offset, length: length)
    look()
  }
  func allocate(at offset: HostOffset, length: UInt64) throws(StorageError) {
    try disk.allocate(at: offset, length: length)
  }
  func truncate(to size: UInt64) throws(StorageError) { try disk.truncate(to: size) }
  func flush() throws(StorageError) {
    look()
    try disk.flush()
    look()
  }
  func nextData(at offset: HostOffset) throws(StorageError) -> HostOffset? {
    try disk.nextData(at: offset)
  }
  func nextHole(at offset: HostOffset) throws(StorageError) -> HostOffset? {
    try disk.nextHole(at: offset)
  }
  func share(
    from source: any BlockStorage, at sourceOffset: HostOffset, to offset: HostOffset,
    length: UInt64
  ) throws(StorageError) -> Bool { false }
  func becomeBacking() { disk.becomeBacking() }
  func refuseWrites() { disk.refuseWrites() }
  func close() { disk.close() }
}

/// What every sector may hold after a crash: its value at the last flush, or any written since.
struct SectorHistory: Sendable {
  private(set) var versions: [[[UInt8]]]
  private(set) var now: ByteModel

  init(bytes: [UInt8]) {
    now = ByteModel(bytes: bytes)
    versions = []
    flushed()
  }

  mutating func flushed() {
    versions = (0..<now.bytes.count / 512).map { [now.read(at: $0 * 512, count: 512)] }
  }

  mutating func write(_ bytes: [UInt8], at offset: Int) {
    now.write(bytes, at: offset)
    for sector in offset / 512...(offset + bytes.count - 1) / 512 {
      versions[sector].append(now.read(at: sector * 512, count: 512))
    }
  }

  /// The first sector that holds what it never held.
  func firstFault(_ found: [UInt8]) -> Int? {
    versions.indices.first { sector in
      !versions[sector].contains(Array(found[sector * 512..<sector * 512 + 512]))
    }
  }
}

@Suite("Qcow2Image after a crash", .tags(.crash))
struct CrashTests {
  struct Shape: Sendable, CustomTestStringConvertible {
    var name: String
    var options: ImageBuilder.Options
    var testDescription: String { name }
  }

  static func shape(_ size: UInt64, _ cluster: Int, _ bits: Int, _ version: Int) -> Shape {
    var options = ImageBuilder.Options(virtualSize: size)
    options.clusterSize = cluster
    options.refcountBits = bits
    options.version = version
    return Shape(name: "\(size) bytes, \(cluster), \(bits), v\(version)", options: options)
  }

  static let extended: Shape = {
    var options = ImageBuilder.Options(virtualSize: 256 << 10)
    options.clusterSize = 16 << 10
    options.hasExtendedL2 = true
    return Shape(name: "extended L2", options: options)
  }()

  static let shapes = [
    extended,
    shape(96 << 10, 512, 64, 3), shape(128 << 10, 1024, 16, 3), shape(256 << 10, 4096, 1, 3),
    shape(256 << 10, 65536, 16, 3), shape(128 << 10, 512, 16, 2),
  ]

  @Test(
    "what was flushed is there, nothing is made up, and no refcount is too low", arguments: shapes)
  func crashAnywhere(_ shape: Shape) throws {
    let disk = SimulatedDisk(seed: 1)
    try ImageBuilder.create(on: disk, shape.options)
    try crashAnywhere(
      disk, [UInt8](repeating: 0, count: Int(shape.options.virtualSize)), shape.name)
  }

  @Test("the same with an internal snapshot", .tags(.qemu), .enabled(if: hasQemu))
  func crashWithSnapshot() throws {
    let bench = try QemuBench()
    try bench.create("compat=1.1,cluster_size=4096", size: 256 << 10)
    try bench.io("write -P 7 0 200k")
    try runSuccessfully("qemu-img", "snapshot", "-c", "s", bench.path)
    let file = try HostFile.open(bench.path, access: .readOnly, locking: .none, role: .backing)
    var bytes = SparseBytes()
    bytes.put(try file.bytes(at: 0, count: Int(file.size())), at: 0)
    let content = try Qcow2Image(storage: file).get(0, 256 << 10)
    try crashAnywhere(SimulatedDisk(seed: 1, durable: bytes), content, "snapshot")
  }

  private func crashAnywhere(_ disk: SimulatedDisk, _ content: [UInt8], _ name: String) throws {
    var random = Seed.generator("crashAnywhere \(name)")
    let size = content.count
    let storage = WatchedStorage(disk)
    let image = try Qcow2Image(storage: storage)
    let history = Monitor(SectorHistory(bytes: content))
    let looks = Monitor((random: SeededGenerator(seed: random.next()), count: 0))
    storage.watch { disk in
      let seed = looks.withLock { looks -> UInt64? in
        looks.count += 1
        return looks.random.oneIn(25) ? looks.random.next() : nil
      }
      guard let seed else { return }
      judge(disk.crash(seed: seed), history.withLock { $0 }, seed)
    }
    for _ in 0..<40 {
      let offset = Int.random(in: 0..<size, using: &random)
      let count = Int.random(in: 1...min(24_000, size - offset), using: &random)
      switch Int.random(in: 0..<10, using: &random) {
      case 0..<6:
        let bytes = random.bytes(count)
        history.withLock { $0.write(bytes, at: offset) }
        try image.put(bytes, at: offset)
      case 6, 7:
        let zeroes = [UInt8](repeating: 0, count: count)
        history.withLock { $0.write(zeroes, at: offset) }
        try image.zero(offset, count, random.oneIn(2) ? .unmap : .keepAllocation)
      default:
        try image.flush()
        history.withLock { $0.flushed() }
        try image.releaseFreed()
      }
    }
    try image.close()
    history.withLock { $0.flushed() }
    storage.watch(nil)
    judge(disk.crash(seed: 0), history.withLock { $0 }, 0)
    #expect(looks.withLock { $0.count } > 40)
  }

  /// A crashed disk opens, holds only what it may, and takes new writes without harm.
  private func judge(_ disk: SimulatedDisk, _ history: SectorHistory, _ seed: UInt64) {
    do {
      #expect(try Audit(disk).faults == [], "seed \(seed)")
      let image = try Qcow2Image(storage: disk)
      let size = history.now.bytes.count
      var found = try image.get(0, size)
      #expect(history.firstFault(found) == nil, "seed \(seed)")
      var random = SeededGenerator(seed: seed)
      for _ in 0..<3 {
        let offset = Int.random(in: 0..<size, using: &random)
        let bytes = random.bytes(min(5000, size - offset))
        found.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        try image.put(bytes, at: offset)
        try image.settle()
      }
      #expect(try image.get(0, size) == found, "seed \(seed)")
      try image.close()
      #expect(try Audit(disk).faults == [], "seed \(seed)")
    } catch {
      Issue.record("seed \(seed): \(error)")
    }
  }

  @Test("a change of the backing reference is old or new after a crash")
  func backing() throws {
    let disk = SimulatedDisk(seed: 3)
    let old = BackingReference(name: "old.qcow2", format: "qcow2")
    let new = BackingReference(name: "a/much/longer/name/than/before.img", format: "raw")
    try ImageBuilder.create(on: disk, virtualSize: 1 << 20, backing: old)
    let storage = WatchedStorage(disk)
    let image = try Qcow2Image(storage: storage)
    try image.put([1, 2, 3], at: 0)
    storage.watch { disk in
      for seed in 0..<10 as Range<UInt64> {
        let found = try? Qcow2Image(storage: disk.crash(seed: seed)).backingReference
        #expect(found == old || found == new)
      }
    }
    try image.setBacking(new)
    storage.watch(nil)
    let found = try Qcow2Image(storage: disk.crash(seed: 9))
    #expect(found.backingReference == new)
    #expect(try found.get(0, 4) == [1, 2, 3, 0])
  }
}
