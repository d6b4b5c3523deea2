import BlockIO
import HostSystem
import TestSupport
import Testing

@testable import ImageDriver

@Suite("Qcow2Image with many threads")
struct ConcurrencyTests {
  private static let threads = 8

  /// Sectors are dealt out to the threads one by one, so that they meet in every cluster.
  @Test(
    "eight threads that share every cluster read back what each wrote",
    arguments: [
      (4096, 2 << 20, 4 << 20), (65536, 4 << 20, 4 << 20), (512, 256 << 10, 4 << 10),
    ])
  func sharedClusters(_ cluster: Int, _ size: Int, _ cacheBytes: Int) throws {
    let storage = MemoryStorage()
    var options = ImageBuilder.Options(virtualSize: UInt64(size))
    options.clusterSize = cluster
    try ImageBuilder.create(on: storage, options)
    let image = try Qcow2Image(storage: storage, cacheBytes: cacheBytes)
    let seed = Seed.of("sharedClusters \(cluster)")
    let gate = SharedGate()
    let final = Monitor([UInt8](repeating: 0, count: size))
    let workers = try (0..<Self.threads).map { number in
      try Worker(name: "writer \(number)") {
        var random = SeededGenerator(seed: seed &+ UInt64(number))
        var own: [Int: [UInt8]] = [:]
        do {
          for _ in 0..<250 {
            let sector =
              Int.random(in: 0..<size / 512 / Self.threads, using: &random) * Self.threads + number
            let bytes = random.bytes(512)
            try gate.shared { try image.put(bytes, at: sector * 512) }
            own[sector] = bytes
            if random.oneIn(20) {
              try gate.shared { try image.flush() }
              try gate.exclusive { try image.releaseFreed() }
            }
            if let (sector, bytes) = own.randomElement(using: &random) {
              let found = try gate.shared { try image.get(sector * 512, 512) }
              #expect(found == bytes)
            }
          }
        } catch { Issue.record("\(error)") }
        final.withLock { final in
          for (sector, bytes) in own {
            final.replaceSubrange(sector * 512..<sector * 512 + 512, with: bytes)
          }
        }
      }
    }
    for worker in workers { worker.join() }
    let model = ByteModel(bytes: final.withLock { $0 })
    #expect(try model.firstDifference(from: image.get(0, size), at: 0) == nil)
    try image.close()
    #expect(try Audit(storage).faults == [])
    #expect(
      try model.firstDifference(from: Qcow2Image(storage: storage).get(0, size), at: 0) == nil)
  }

  @Test("a copier never overwrites a guest")
  func guestWins() throws {
    let storage = MemoryStorage()
    let size = 8 << 20
    try ImageBuilder.create(on: storage, ImageBuilder.Options(virtualSize: UInt64(size)))
    let image = try Qcow2Image(storage: storage)
    let cluster = image.clusterSize
    let copier = try Worker(name: "copier") {
      do {
        var position = 0
        while position < size {
          guard let ticket = try image.beginPopulate(guestRange(position, size - position))
          else { return }
          position = Int(ticket.guest.end.rawValue)
          let bytes = [UInt8](repeating: 1, count: Int(ticket.guest.length))
          try storage.put(bytes, at: ticket.host.rawValue)
          try ticket.commit()
        }
      } catch { Issue.record("\(error)") }
    }
    for index in stride(from: 0, to: size / cluster, by: 3) {
      try image.put([UInt8](repeating: 2, count: 512), at: index * cluster + 512)
    }
    copier.join()
    for index in stride(from: 0, to: size / cluster, by: 3) {
      let found = try image.get(index * cluster, 2048)
      #expect(Array(found[512..<1024]) == [UInt8](repeating: 2, count: 512))
      // Around it lies what was there first: the copy, or nothing.
      #expect(found[0] <= 1 && found[2047] == found[0])
    }
    try image.close()
    #expect(try Audit(storage).faults == [])
  }

  @Test("a ticket that is dropped leaves the cluster to the next writer")
  func dropped() throws {
    let storage = MemoryStorage()
    try ImageBuilder.create(on: storage, ImageBuilder.Options(virtualSize: 1 << 20))
    let image = try Qcow2Image(storage: storage)
    do {
      let step = try image.beginWrite(guestRange(0, 10))
      guard case .allocate(let ticket) = consume step else {
        Issue.record("an empty image has no place")
        return
      }
      #expect(ticket.guest == guestRange(0, 65536))
    }
    #expect(try image.mapping(at: .zero, upTo: 10).mapping == .unallocated)
    try image.put([4], at: 5)
    #expect(try image.get(4, 3) == [0, 4, 0])
    try image.close()
    #expect(try Audit(storage).faults == [])
  }
}
