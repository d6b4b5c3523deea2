import Foundation
import HostSystem
import Synchronization
import Testing

@testable import Chain

// The 60 s version is asked for by CHAINFS_TORTURE=60; without it a second is all it takes.
//
// The disk is dealt out in sectors by a rule that mixes owners inside every page and cluster: most
// requests are odd, so both doors of the file are used side by side in one cluster.
@Suite("A disk under everything at once", .enabled(if: Workbench.hasTool("qemu-img")))
struct DiskTortureTests {
  static let threads = 8
  static let sectorsEach = 3072

  static var seconds: Int64 {
    ProcessInfo.processInfo.environment["CHAINFS_TORTURE"].flatMap { Int64($0) } ?? 1
  }

  @Test(
    "bytes hold while threads write, zero, discard and flush, and jobs, snapshots go on",
    arguments: [65536, 4096, 512])
  func bytesHold(cluster: Int) throws {
    let size = Self.threads * Self.sectorsEach * 512
    let chain = try RandomChain(
      seed: UInt64(cluster), depth: 4, sizeUnits: size / RandomChain.unit, topCluster: cluster)
    let initial = try chain.bench.flatBytes(chain.top)
    let disk = try Disk.open(
      DeviceConfiguration(name: "vda", image: .qcow2(path: chain.top), mapCacheBytes: 1 << 14))
    let models = Monitor<[[UInt8]]>(Array(repeating: [], count: Self.threads))
    let isOver = Atomic<Bool>(false)
    var workers: [Worker] = []
    for index in 0..<Self.threads {
      workers.append(
        try Worker(name: "guest-\(index)") {
          let model = guest(index, UInt64(cluster), disk, initial, isOver)
          models.withLock { $0[index] = model }
        })
    }
    // Reads ahead in long runs, so that the host caches far more than what is asked for, in large
    // pieces that direct writes have to drop again.
    workers.append(
      try Worker(name: "reader") {
        do {
          while !isOver.load(ordering: .relaxed) { _ = try disk.allBytes() }
        } catch { Issue.record("\(error)") }
      })
    let whole = GuestRange(offset: .zero, length: disk.virtualSize)
    let time = SystemTimeSource()
    let end = time.now().advanced(byMilliseconds: Self.seconds * 1000)
    var random = SplitMix(state: UInt64(cluster) &+ 1)
    var count = 0
    var top = chain.top
    do {
      defer {
        isOver.store(true, ordering: .relaxed)
        for worker in workers { worker.join() }
      }
      while time.now() < end {
        let layers = try disk.layers()
        if layers.count < 5 || (layers.count < 9 && random.next() % 2 == 0) {
          count += 1
          top = chain.bench.path("snap\(count)")
          try disk.snapshot(path: top)
          continue
        }
        let base: LayerID? = random.next() % 3 == 0 ? nil : layers[1 + Int(random.next() % 4)].id
        // A stream that is given up half way, then one that two threads carry out.
        let half = GuestRange(
          offset: .zero, length: random.next() % (disk.virtualSize / 4096) * 4096)
        _ = try disk.populate(half, base: base)
        if random.next() % 3 == 0 { continue }
        let second = try Worker(name: "copier") {
          do { _ = try disk.populate(whole, base: base) } catch { Issue.record("\(error)") }
        }
        _ = try disk.populate(whole, base: base)
        second.join()
        try disk.rebase(to: base)
      }
    }
    var expected = initial
    for (index, model) in models.withLock({ $0 }).enumerated() where !model.isEmpty {
      for number in 0..<Self.sectorsEach {
        let sector = Self.sector(number, of: index)
        for byte in sector * 512..<(sector + 1) * 512 { expected[byte] = model[byte] }
      }
    }
    #expect(firstDifference(try disk.allBytes(), expected) == nil, "cluster \(cluster)")
    try disk.close()
    try chain.bench.expectClean(top)
    #expect(firstDifference(try chain.bench.flatBytes(top), expected) == nil)
  }

  /// Owners change every 1 to 48 sectors, so that runs begin and end inside pages and clusters.
  private static func sector(_ number: Int, of owner: Int) -> Int {
    let run = [3, 48, 8, 13][number / 48 % 4]
    let block = number / 48 * 48
    let inside = number - block
    // Inside a block of 48 sectors for each owner, runs of all owners alternate.
    let part = inside / run
    let length = min(run, 48 - part * run)
    return block * threads + part * run * threads + owner * length + inside - part * run
  }

  private func guest(
    _ index: Int, _ seed: UInt64, _ disk: Disk, _ initial: [UInt8],
    _ isOver: borrowing Atomic<Bool>
  ) -> [UInt8] {
    var model = initial
    var random = SplitMix(state: seed &* 100 &+ UInt64(index))
    var step = 0
    do {
      while step < 200 || !isOver.load(ordering: .relaxed) {
        step += 1
        let number = Int(random.next() % UInt64(Self.sectorsEach))
        let first = Self.sector(number, of: index)
        // As far as the next sectors are ours too.
        let most = 1 + Int(random.next() % 48)
        var count = 1
        while count < most, number + count < Self.sectorsEach,
          Self.sector(number + count, of: index) == first + count
        { count += 1 }
        let bytes = first * 512..<(first + count) * 512
        let range = GuestRange(
          offset: GuestOffset(UInt64(bytes.lowerBound)), length: UInt64(bytes.count))
        switch random.next() % 16 {
        case 0...5:
          let value = UInt8(truncatingIfNeeded: random.next()) | 1
          try disk.put(
            [UInt8](repeating: value, count: bytes.count), at: UInt64(bytes.lowerBound))
          for byte in bytes { model[byte] = value }
        case 6, 7:
          try disk.discard(range)
          for byte in bytes { model[byte] = 0 }
        case 8:
          try disk.writeZeroes(range)
          for byte in bytes { model[byte] = 0 }
        case 9: try disk.preallocate(range)
        case 10 where step % 16 == 0: try disk.flush()
        default:
          let found = try disk.bytes(at: UInt64(bytes.lowerBound), count: bytes.count)
          if found != Array(model[bytes]) {
            let place = zip(found, model[bytes]).enumerated().first { $1.0 != $1.1 }?.offset ?? 0
            Issue.record(
              "thread \(index), step \(step): byte \(bytes.lowerBound + place) of \(bytes): \(found[place]) against \(model[bytes.lowerBound + place])"
            )
            return model
          }
        }
      }
    } catch {
      Issue.record("thread \(index), step \(step): \(error)")
    }
    return model
  }
}
