import ArgumentParser
import TestSupport

/// Which state of a run: the workload, the number of a crash in its session, the number of a crash in the
/// session that went on from there, and so on.
struct StateName: Sendable, Hashable {
  var workload: Int
  var numbers: [Int]

  /// The state of a crash in the session of this name.
  func appending(_ number: Int) -> StateName {
    StateName(workload: workload, numbers: numbers + [number])
  }

  /// What decides everything that happens in and to this state.
  func seed(_ seed: UInt64) -> UInt64 {
    var generator = SeededGenerator(seed: seed ^ UInt64(workload) &* 0xD134_2543_DE82_EF95)
    var result = generator.next()
    for number in numbers {
      generator = SeededGenerator(seed: result ^ UInt64(number) &* 0x2545_F491_4F6C_DD1D)
      result = generator.next()
    }
    return result
  }
}

extension StateName: CustomStringConvertible, ExpressibleByArgument {
  /// `workload.number` or `workload.number.number`.
  var description: String { ([workload] + numbers).map(String.init).joined(separator: ".") }

  init?(argument: String) {
    let parts = argument.split(separator: ".").map { Int($0) }
    let numbers = parts.compactMap { $0 }
    guard numbers.count == parts.count, numbers.count >= 2 else { return nil }
    self.init(workload: numbers[0], numbers: Array(numbers.dropFirst()))
  }
}
