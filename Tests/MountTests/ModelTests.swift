import Foundation
import TestSupport
import Testing

extension MountTests {
  /// Eight threads against a byte model, while a stream, snapshots and a cancel go on.
  ///
  /// Each thread has an eighth of the disk, in turns with the others at sub-cluster granularity, so
  /// that neighbours meet in one cluster; its part of the model is its own and needs no lock.
  @Suite("A byte model", .serialized, .timeLimit(.minutes(4)))
  struct ModelTests {
    static let diskSize = 48 << 20
    static let stripe = 24 << 10

    @Test("eight threads see their own bytes through streams, snapshots and a cancel")
    func eightThreads() throws {
      let environment = ProcessInfo.processInfo.environment
      let seconds = environment["CHAINFS_MODEL_SECONDS"].flatMap { Double($0) } ?? 20
      let seed = environment["CHAINFS_SEED"].flatMap { UInt64($0) } ?? .random(in: 1...UInt64.max)
      print("CHAINFS_SEED=\(seed)")
      let box = try Sandbox()
      try box.run(
        """
        qemu-img create -q -f qcow2 base.qcow2 48M
        qemu-io -f qcow2 -c 'write -q -P 17 0 48M' base.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2
        qemu-io -f qcow2 -c 'write -q -P 34 8M 24M' mid.qcow2
        qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2
        chainfs mount vda=top.qcow2 mnt
        cp mnt/vda model
        """)
      let end = Date().addingTimeInterval(seconds)
      let threads = try (0..<8).map { number in
        try ModelThread(box: box, number: number, seed: seed &+ UInt64(number), until: end)
      }
      for thread in threads { thread.start() }
      var round = 0
      while Date() < end {
        round += 1
        try box.run(
          """
          chainfs stream --speed 4M mnt/vda; sleep 0.5
          # A later round may find so little to copy that the job is over by now.
          chainfs speed mnt/vda 12M || true; sleep 0.5
          chainfs cancel mnt/vda || true; cat mnt/.jobs/vda/wait
          chainfs snapshot mnt/vda $PWD/round\(round).qcow2; sleep 0.2
          chainfs stream --wait mnt/vda
          """)
      }
      for thread in threads { thread.finished.wait() }
      for thread in threads { #expect(thread.difference == nil, "seed \(seed)") }
      let operations = threads.map(\.operations).reduce(0, +)
      print("\(operations) operations, \(round) rounds of stream, cancel, snapshot, stream")
      #expect(operations > 100)
      try box.run("sync mnt/vda; cmp mnt/vda model; chainfs unmount mnt")
      try box.run("qemu-img check -q round\(round).qcow2")
      try box.run("qemu-img compare -q -F raw round\(round).qcow2 model")
    }
  }
}

/// One thread of the model test: reads, writes, punches and syncs in its own stripes.
///
/// Sendable, unchecked: the thread alone uses it until `finished` is signalled.
final class ModelThread: @unchecked Sendable {
  let finished = DispatchSemaphore(value: 0)
  private(set) var difference: String?
  private(set) var operations = 0
  private let number: Int
  private let end: Date
  private let device: Int32
  private let model: Int32
  private var state: UInt64

  init(box: Sandbox, number: Int, seed: UInt64, until end: Date) throws {
    self.number = number
    self.end = end
    state = seed
    device = open(box.device, O_RDWR | O_CLOEXEC)
    model = open(box.path + "/model", O_RDWR | O_CLOEXEC)
    guard device >= 0, model >= 0 else { throw CommandFailure(description: "cannot open the disk") }
  }

  private func random(_ bound: Int) -> Int {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return Int((state >> 33) % UInt64(bound))
  }

  func start() {
    Thread { self.run() }.start()
  }

  private func run() {
    defer {
      close(device)
      close(model)
      finished.signal()
    }
    let stripe = MountTests.ModelTests.stripe
    let stripes = MountTests.ModelTests.diskSize / stripe / 8
    while Date() < end, difference == nil {
      let start = (random(stripes) * 8 + number) * stripe
      let offset = start + random(stripe - 1)
      let count = 1 + random(start + stripe - offset - 1 + 1)
      operations += 1
      switch random(10) {
      case 0..<5: check(offset, count)
      case 5..<9:
        let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ operations &+ number) }
        if pwrite(device, bytes, count, off_t(offset)) != count {
          difference = "write of \(count) at \(offset): errno \(errno)"
        }
        _ = pwrite(model, bytes, count, off_t(offset))
      default:
        if fsync(device) != 0 { difference = "fsync: errno \(errno)" }
      }
    }
  }

  private func check(_ offset: Int, _ count: Int) {
    var found = [UInt8](repeating: 0, count: count)
    var expected = found
    let length = pread(device, &found, count, off_t(offset))
    _ = pread(model, &expected, count, off_t(offset))
    if length != count {
      difference = "read of \(count) at \(offset): \(length), errno \(errno)"
    } else if found != expected {
      let place = zip(found, expected).enumerated().first { $1.0 != $1.1 }?.offset ?? 0
      difference =
        "byte \(offset + place) is \(found[place]) and not \(expected[place])"
        + " (read of \(count) at \(offset))"
    }
  }
}
