import BlockIO
import Glibc
import HostSystem
import Synchronization
import TestSupport
import Testing

@testable import BlockIO

@Suite(.timeLimit(.minutes(1))) struct SharedFlushTests {
  static let failure = SystemError(call: "fdatasync", number: EIO)

  @Test("a flush that failed fails for good, without asking the host again")
  func sticky() throws {
    let flush = SharedFlush()
    try flush.run {}
    #expect(throws: Self.failure) {
      try flush.run { () throws(SystemError) in throw Self.failure }
    }
    var runs = 0
    #expect(throws: Self.failure) { try flush.run { runs += 1 } }
    #expect(runs == 0)
    #expect(flush.failure == Self.failure)
  }

  @Test("those who ask while one runs share the next, which begins after they asked")
  func shares() throws {
    let flush = SharedFlush()
    let gate = Monitor(false)
    let runs = Monitor(0)
    let asked = Monitor(0)
    let first = try Worker(name: "first") {
      try? flush.run {
        runs.change { $0 += 1 }
        gate.wait { !$0 }
      }
    }
    runs.wait { $0 == 0 }
    let others = try (0..<5).map { index in
      try Worker(name: "other \(index)") {
        asked.change { $0 += 1 }
        try? flush.run { runs.change { $0 += 1 } }
      }
    }
    asked.wait { $0 < 5 }
    gate.change { $0 = true }
    first.join()
    for other in others { other.join() }
    let total = runs.withLock { $0 }
    #expect((2...6).contains(total))
  }

  @Test("a full disk's failing flush is reported by the file, now and later")
  func fileReports() throws {
    // /dev/full and its like have no fdatasync that fails; a simulated disk has.
    let disk = SimulatedDisk(seed: 1)
    try disk.put([1], at: 0)
    disk.inject(.fails(call: disk.callCount + 1))
    #expect(throws: StorageError.self) { try disk.flush() }
    disk.inject(nil)
    #expect(throws: StorageError.self) { try disk.flush() }
  }
}

@Suite struct ThreadScratchTests {
  @Test("buffers start on a page, grow, and belong to one purpose and thread")
  func buffers() throws {
    for count in [1, 4096, 5000, 1 << 20, 10] {
      ThreadScratch.withBuffer(.cow, byteCount: count) { outer in
        let byteCount = outer.byteCount
        #expect(byteCount == count)
        let address = outer.withUnsafeBytes { UInt(bitPattern: $0.baseAddress) }
        #expect(address % 4096 == 0)
        outer.fillWithZeroes()
        ThreadScratch.withBuffer(.inflate, byteCount: count) { inner in
          inner.storeBytes(of: 7, as: UInt8.self)
        }
        let isUntouched = outer.bytes.isAllZero
        #expect(isUntouched)
      }
    }
    let worker = try Worker(name: "scratch") {
      ThreadScratch.withBuffer(.cow, byteCount: 9000) { $0.fillWithZeroes() }
    }
    worker.join()
  }
}
