import HostSystem
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(1))) struct MonitorTests {
  @Test("an attempt is made again when the value changes")
  func waits() throws {
    let queue = Monitor([Int]())
    let total = Monitor(0)
    let reader = try Worker(name: "reader") {
      for _ in 0..<1000 {
        let item = queue.wait { $0.isEmpty ? nil : $0.removeFirst() }
        total.withLock { $0 += item ?? 0 }
      }
    }
    for item in 1...1000 { queue.change { $0.append(item) } }
    reader.join()
    #expect(total.withLock { $0 } == 500_500)
  }

  @Test("a wait ends at its deadline with nothing")
  func deadline() {
    let value = Monitor(0)
    let clock = SystemTimeSource()
    let start = clock.now()
    let deadline = start.advanced(byMilliseconds: 30)
    let got: Int? = value.wait(until: deadline) { $0 == 0 ? nil : $0 }
    #expect(got == nil)
    #expect(clock.now() >= deadline)
    #expect(!value.wait(until: clock.now()) { $0 == 0 })
  }

  @Test("a lock is given back when the body throws")
  func throwing() {
    struct Refusal: Error {}
    let value = Monitor(1)
    #expect(throws: Refusal.self) { try value.withLock { _ throws(Refusal) in throw Refusal() } }
    #expect(value.withLock { $0 } == 1)
  }
}

@Suite(.timeLimit(.minutes(1))) struct SharedGateTests {
  @Test("an exclusive body never runs beside a shared one, and is not starved")
  func excludes() throws {
    let gate = SharedGate()
    let inside = Atomic(0)
    let wrong = Atomic(0)
    let stop = Atomic(false)
    let readers = try (0..<4).map { index in
      try Worker(name: "reader \(index)") {
        while !stop.load(ordering: .relaxed) {
          gate.shared {
            inside.wrappingAdd(1, ordering: .sequentiallyConsistent)
            inside.wrappingSubtract(1, ordering: .sequentiallyConsistent)
          }
        }
      }
    }
    for _ in 0..<200 {
      gate.exclusive {
        if inside.load(ordering: .sequentiallyConsistent) != 0 {
          wrong.wrappingAdd(1, ordering: .relaxed)
        }
      }
    }
    stop.store(true, ordering: .relaxed)
    for reader in readers { reader.join() }
    let count = wrong.load(ordering: .relaxed)
    #expect(count == 0)
  }

  @Test("shared bodies run beside each other")
  func shares() throws {
    let gate = SharedGate()
    let arrived = Monitor(0)
    let workers = try (0..<3).map { index in
      try Worker(name: "shared \(index)") {
        gate.shared {
          arrived.change { $0 += 1 }
          arrived.wait { $0 < 3 }
        }
      }
    }
    for worker in workers { worker.join() }
    #expect(arrived.withLock { $0 } == 3)
  }
}

@Suite struct WorkerTests {
  @Test("a worker has run when it was joined, and joining twice is harmless")
  func joins() throws {
    let done = Atomic(false)
    let worker = try Worker(name: "a name that is far longer than the kernel keeps") {
      done.store(true, ordering: .relaxed)
    }
    worker.join()
    worker.join()
    let isDone = done.load(ordering: .relaxed)
    #expect(isDone)
  }
}
