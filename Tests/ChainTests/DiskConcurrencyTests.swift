import Foundation
import HostSystem
import Synchronization
import Testing

@testable import Chain

// A sector has one writer, so what it holds at any moment is known to that thread alone; clusters are
// still shared between all of them.
@Suite("Many threads on a disk", .enabled(if: Workbench.hasTool("qemu-img")))
struct DiskConcurrencyTests {
  static let threads = 8

  @Test(
    "threads see their own bytes while everything is streamed, rebased and snapshot",
    arguments: 0..<3)
  func bytesHold(seed: UInt64) throws {
    let chain = try RandomChain(
      seed: seed &+ 40, depth: 4, sizeUnits: 2048, topCluster: [65536, 4096, 16384][Int(seed)])
    let initial = try chain.bench.flatBytes(chain.top)
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: chain.top), mapCacheBytes: 1 << 16))
    let models = Monitor<[[Int: UInt8]]>(Array(repeating: [:], count: Self.threads))
    let isOver = Atomic<Bool>(false)
    var workers: [Worker] = []
    for index in 0..<Self.threads {
      workers.append(
        try Worker(name: "guest-\(index)") {
          let model = guest(index, seed, disk, initial, isOver)
          models.withLock { $0[index] = model }
        })
    }
    let path = chain.bench.path("after")
    do {
      defer {
        isOver.store(true, ordering: .relaxed)
        for worker in workers { worker.join() }
      }
      let whole = GuestRange(offset: .zero, length: disk.virtualSize)
      let base = try disk.layers()[2].id
      for target in [base, nil] as [LayerID?] {
        // Two copiers meet each other as well as the guests.
        let second = try Worker(name: "copier") {
          do {
            _ = try disk.populate(whole, base: target)
          } catch {
            Issue.record("\(error)")
          }
        }
        _ = try disk.populate(whole, base: target)
        second.join()
        try disk.rebase(to: target)
        try disk.flush()
        if target != nil {
          try disk.snapshot(path: path)
        }
      }
    }
    var expected = initial
    for model in models.withLock({ $0 }) {
      for (sector, value) in model {
        for byte in sector * 512..<(sector + 1) * 512 { expected[byte] = value }
      }
    }
    #expect(firstDifference(try disk.allBytes(), expected) == nil, "seed \(seed)")
    #expect(try disk.layers().count == 1)
    try disk.close()
    try chain.bench.expectClean(path)
    try chain.bench.expectClean(chain.top)
    #expect(firstDifference(try chain.bench.flatBytes(path), expected) == nil, "seed \(seed)")
  }

  /// Reads, writes and discards the sectors of one thread until it is told to stop.
  private func guest(
    _ index: Int, _ seed: UInt64, _ disk: Disk, _ initial: [UInt8],
    _ isOver: borrowing Atomic<Bool>
  ) -> [Int: UInt8] {
    var model: [Int: UInt8] = [:]
    var random = SplitMix(state: seed &* 100 &+ UInt64(index))
    let count = initial.count / 512
    do {
      var step = 0
      // At least some work is done however fast the stream is, and not without end.
      while step < 400 || (!isOver.load(ordering: .relaxed) && step < 100_000) {
        step += 1
        let sector =
          Int(random.next() % UInt64(count / Self.threads)) * Self.threads + index
        let place = UInt64(sector * 512)
        switch random.next() % 8 {
        case 0...3:
          let value = UInt8(truncatingIfNeeded: random.next())
          try disk.put([UInt8](repeating: value, count: 512), at: place)
          model[sector] = value
        case 4:
          try disk.discard(GuestRange(offset: GuestOffset(place), length: 512))
          model[sector] = 0
        case 5 where step % 64 == 0:
          try disk.flush()
        default:
          let bytes = try disk.bytes(at: place, count: 512)
          let expected =
            model[sector].map { [UInt8](repeating: $0, count: 512) }
            ?? Array(initial[sector * 512..<(sector + 1) * 512])
          if bytes != expected {
            Issue.record("seed \(seed), thread \(index), step \(step): sector \(sector) differs")
            return model
          }
        }
      }
    } catch {
      Issue.record("seed \(seed), thread \(index): \(error)")
    }
    return model
  }
}
