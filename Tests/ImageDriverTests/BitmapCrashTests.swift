import BlockIO
import HostSystem
import Qcow2Format
import Synchronization
import TestSupport
import Testing

@testable import ImageDriver

/// Power goes, or a call fails, at every call that notes and stores bitmaps. What is left has bitmaps
/// that are in use, or that have a bit for every byte that changed.
@Suite("Persistent bitmaps after a crash", .tags(.crash, .qemu), .enabled(if: hasQemu))
struct BitmapCrashTests {
  static let size = (5 << 20) + 512
  static let grown = 36 << 20
  /// Where the tests write.
  static let windows = [
    0..<4096, 98_304..<106_496, 2 << 20..<(2 << 20) + 4096, 3 << 20..<(3 << 20) + 512,
    size - 1024..<size,
  ]

  /// An image with three bitmaps: one with bits, an empty one, and a disabled one. A cluster of bits
  /// covers 2 MiB of the first.
  private func image() throws -> (SparseBytes, [UInt8]) {
    let bench = try QemuBench()
    try bench.create("cluster_size=512", size: Self.size)
    try bench.bitmap("--add", "-g", "512", "off")
    try bench.bitmap("--add", "-g", "512", "fine")
    try bench.io("write -P 7 0 2048", "write -P 7 2M 512")
    try bench.bitmap("--disable", "off")
    try bench.bitmap("--add", "-g", "4096", "coarse")
    let flat = try bench.flat()
    return (try bench.bytes(), flat)
  }

  private func change(_ image: Qcow2Image) throws {
    try image.put([1, 2, 3], at: 1000)
    try image.put([UInt8](repeating: 9, count: 3000), at: 100_000)
    try image.flush()
    try image.zero(2 << 20, 4096, .unmap)
    try image.put([5], at: Self.size - 1)
  }

  /// Checks what a crash left; gives the names of the bitmaps that claim to be true.
  @discardableResult
  private func judge(
    _ disk: SimulatedDisk, _ before: [UInt8], _ says: String
  ) throws -> Set<String> {
    let report = try ImageCheck.run(storage: disk)
    #expect(report.corruptions == 0, "\(says): \(report.findings)")
    let stored = try StoredBitmaps(disk)
    #expect(stored.entries.map(\.name) == ["off", "fine", "coarse"], "\(says)")
    let image = try Qcow2Image(storage: disk)
    // Reading all of the disk for each crash would take minutes.
    let now = try Self.windows.map { try image.get($0.lowerBound, $0.count) }
    var valid: Set<String> = []
    for entry in stored.entries where !entry.flags.contains(.inUse) {
      valid.insert(entry.name)
      let granules = try stored.granules(entry.name)
      if entry.name == "off" {
        #expect(granules == [0, 1, 2, 3, 4096], "\(says)")
        continue
      }
      if entry.name == "fine" { #expect(granules.isSuperset(of: [0, 1, 2, 3, 4096]), "\(says)") }
      let length = 1 << entry.granularityBits
      for (window, bytes) in zip(Self.windows, now) where Array(before[window]) != bytes {
        for (place, byte) in zip(window, bytes) where before[place] != byte {
          #expect(granules.contains(UInt64(place / length)), "\(says): \(entry.name) at \(place)")
        }
      }
    }
    return valid
  }

  /// Runs an operation with a fault at each of its calls, and looks at the disk after each.
  private func atEachCall(
    _ fault: (Int) -> SimulatedDisk.Fault, operation: (Qcow2Image) throws -> Void,
    goesOn: (Qcow2Image) throws -> Void = { _ in },
    check: (Set<String>, Bool, String) throws -> Void
  ) throws {
    let (bytes, before) = try image()
    var call = 1
    var isDone = false
    while !isDone {
      let disk = SimulatedDisk(seed: UInt64(call), durable: bytes)
      let image = try Qcow2Image(storage: disk)
      disk.inject(fault(disk.callCount + call))
      do {
        try operation(image)
        isDone = true
      } catch is ImageError {
        // What counts is what is left.
      } catch is StorageError {
        // The guest's own bytes.
      }
      for crash in 0..<4 as Range<UInt64> {
        let says = "call \(call), crash \(crash)"
        let left = disk.crash(seed: UInt64(call) * 10 + crash)
        try check(try judge(left, before, says), isDone, says)
      }
      disk.inject(nil)
      do { try goesOn(image) } catch is ImageError {
        // A flush that failed once fails for good.
      }
      try judge(disk.crash(seed: 0), before, "call \(call), gone on")
      call += 1
    }
    #expect(call > 20)
  }

  @Test("power goes while bitmaps are marked, noted in and stored")
  func power() throws {
    try atEachCall(
      { .losesPower(call: $0) },
      operation: { image in
        try change(image)
        try image.close()
      },
      check: { valid, isDone, says in
        #expect(valid.contains("off"), "\(says)")
        if isDone { #expect(valid.count == 3, "\(says)") }
      })
  }

  @Test("power goes while a second session lays its notes over the first one's")
  func powerAgain() throws {
    try atEachCall(
      { .losesPower(call: $0) },
      operation: { image in
        try image.put([1], at: 0)
        try image.close()
        try change(image)
        try image.close()
      },
      check: { valid, isDone, says in
        #expect(valid.contains("off"), "\(says)")
        if isDone { #expect(valid.count == 3, "\(says)") }
      })
  }

  @Test("a call fails, and the image goes on and is closed")
  func failure() throws {
    try atEachCall(
      { .fails(call: $0) },
      operation: { image in
        try change(image)
        try image.close()
      },
      goesOn: { image in
        try image.put([4], at: 3 << 20)
        try image.close()
      },
      check: { valid, _, says in
        #expect(valid.contains("off"), "\(says)")
      })
  }

  @Test("power goes while the disk grows, and its bitmaps with it")
  func growth() throws {
    try atEachCall(
      { .losesPower(call: $0) },
      operation: { image in
        try change(image)
        try image.grown(to: UInt64(Self.grown)).close()
      },
      check: { valid, isDone, says in
        if isDone { #expect(valid.count == 3, "\(says)") }
      })
  }

  @Test("a call fails while the disk grows, and the image is closed as it was")
  func failedGrowth() throws {
    try atEachCall(
      { .fails(call: $0) },
      operation: { image in
        try change(image)
        try image.grown(to: UInt64(Self.grown)).close()
      },
      goesOn: { image in
        if !image.storage.isReadOnly { try image.close() }
      }, check: { _, _, _ in })
  }

  @Test("a growth that the host has no room for leaves no leak")
  func growthWithoutRoom() throws {
    let (bytes, before) = try image()
    // The tables of the bitmaps get 75 entries, which take two clusters, and the L1 table 75 clusters.
    let larger: UInt64 = 150 << 20
    var (room, failures) = (bytes.count, 0)
    while true {
      let disk = SimulatedDisk(seed: 1, durable: bytes)
      let image = try Qcow2Image(storage: disk)
      try change(image)
      disk.inject(.isFull(bytes: room))
      if let grown = try? image.grown(to: larger) {
        try grown.close()
        break
      }
      failures += 1
      disk.inject(nil)
      try image.close()
      // What a claim had counted when it failed is counted anew by the next opening.
      let left = SimulatedDisk(seed: 1, durable: disk.snapshot)
      try Qcow2Image(storage: left).close()
      #expect(try ImageCheck.run(storage: left).findings == [], "\(room) bytes")
      #expect(try judge(left, before, "\(room) bytes").count == 3)
      room += 1024
    }
    #expect(failures > 20)
  }

  @Test("a full disk leaves the bitmap in use, and the next close stores it")
  func full() throws {
    let (bytes, before) = try image()
    let disk = SimulatedDisk(seed: 1, durable: bytes)
    let image = try Qcow2Image(storage: disk)
    // In place, so that only the bitmaps need room.
    try image.put([1], at: 0)
    try image.flush()
    disk.inject(.isFull(bytes: 0))
    #expect(throws: ImageError.self) { try image.close() }
    #expect(try StoredBitmaps(disk).entry("fine").flags == [.inUse, .auto])
    disk.inject(nil)
    try image.close()
    #expect(try judge(disk.crash(seed: 0), before, "closed").count == 3)
    #expect(try ImageCheck.run(storage: disk).isClean)
  }
}
