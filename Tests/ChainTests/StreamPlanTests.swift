import HostSystem
import Testing

@testable import Chain

@Suite("Stream plan")
struct StreamPlanTests {
  typealias Answer = StreamPlan.Answer

  struct Row: Sendable, CustomTestStringConvertible {
    var says: String
    var runs: [(UInt64, Answer)]
    var keepsBase = true
    var kinds: [(UInt64, StreamKind)]
    var testDescription: String { says }
  }

  static let rows = [
    Row(says: "dropped data is copied", runs: [(8, .droppedData)], kinds: [(8, .copy)]),
    Row(says: "dropped zeroes become zero", runs: [(8, .droppedZero)], kinds: [(8, .zero)]),
    Row(
      says: "dropped zeroes are skipped without a base", runs: [(8, .droppedZero)],
      keepsBase: false, kinds: [(8, .skip)]),
    Row(says: "the base's data stays", runs: [(8, .keptData)], kinds: [(8, .skip)]),
    Row(says: "what nobody has is skipped", runs: [(8, .keptZero)], kinds: [(8, .skip)]),
    Row(says: "the active image's is skipped", runs: [(8, .active)], kinds: [(8, .skip)]),
    Row(
      says: "a cluster that is partly dropped is copied whole",
      runs: [(1, .droppedData), (3, .keptData), (4, .keptData)], kinds: [(4, .copy), (4, .skip)]),
    Row(
      says: "dropped zeroes beside the base's data are copied, not zeroed",
      runs: [(2, .keptData), (2, .droppedZero)], kinds: [(4, .copy)]),
    Row(
      says: "dropped zeroes beside nothing become zero",
      runs: [(2, .keptZero), (2, .droppedZero)], kinds: [(4, .zero)]),
    Row(
      says: "a run that starts inside a cluster goes on with whole ones",
      runs: [(2, .keptZero), (9, .droppedData), (1, .keptZero), (4, .keptZero)],
      kinds: [(12, .copy), (4, .skip)]),
    Row(
      says: "the last cluster may be cut", runs: [(4, .active), (2, .droppedData)],
      kinds: [(4, .skip), (2, .copy)]),
    Row(says: "nothing gives nothing", runs: [], kinds: []),
  ]

  @Test("clusters are decided by all that answers for them", arguments: rows)
  func decides(_ row: Row) {
    var plan = StreamPlan(
      from: GuestOffset(rawValue: 8), unit: 4, keepsBase: row.keepsBase)
    for (length, answer) in row.runs { plan.add(length: length, answer) }
    plan.finish()
    var position: UInt64 = 8
    var expected: [StreamExtent] = []
    for (length, kind) in row.kinds {
      let range = GuestRange(offset: GuestOffset(rawValue: position), length: length)
      expected.append(StreamExtent(range: range, kind: kind))
      position += length
    }
    #expect(plan.extents == expected)
  }
}
