import HostSystem
import Testing

@Suite struct ShardedCountersTests {
  @Test("what many threads add is all there, and the greatest value stays")
  func counting() throws {
    let counters = ShardedCounters(count: 40)
    let workers = try (0..<40).map { number in
      try Worker(name: "count") {
        for step in 1...1000 {
          counters.add(UInt64(step), to: number % 2)
          counters.raise(39, to: UInt64(number * 1000 + step))
        }
      }
    }
    for worker in workers { worker.join() }
    #expect(counters.total(0) == 20 * 500_500)
    #expect(counters.total(1) == 20 * 500_500)
    #expect(counters.greatest(39) == 40_000)
    #expect((2..<39).allSatisfy { counters.total($0) == 0 })
  }
}
