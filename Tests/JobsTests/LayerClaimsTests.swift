import Chain
import Testing

@testable import Jobs

@Suite("LayerClaims")
struct LayerClaimsTests {
  private func id(_ number: UInt32) -> LayerID { LayerID(rawValue: number) }

  @Test(
    "of two jobs that need one layer the second is told the topmost one, others go together",
    arguments: [
      (6, nil, 6, 4, 6), (6, 4, 6, 4, 6), (6, 4, 5, nil, 5), (6, 4, 7, 5, 6), (6, 4, 9, nil, 6),
      (6, 4, 4, 2, nil), (6, 4, 9, 6, nil), (6, 4, 3, nil, nil), (6, 4, 5, 4, 5),
      (0, nil, 0, nil, 0), (1, 0, 0, nil, nil), (0, nil, 1, 0, nil), (0, nil, 1, nil, 0),
      (3, 2, 3, 1, 3),
    ] as [(UInt32, UInt32?, UInt32, UInt32?, UInt32?)])
  func overlap(top: UInt32, base: UInt32?, other: UInt32, otherBase: UInt32?, taken: UInt32?) {
    let claims = LayerClaims()
    let first = claims.take(id(top), base: base.map(id))
    let second = claims.take(id(other), base: otherBase.map(id))
    #expect(first.number != nil && (second.number == nil) == (taken != nil))
    #expect(second.taken == taken.map(id))
    if let number = first.number { claims.giveBack(number) }
    if second.number == nil {
      #expect(claims.take(id(other), base: otherBase.map(id)).number != nil)
    }
  }

  @Test("of several that are in the way the topmost layer is told")
  func topmost() {
    let claims = LayerClaims()
    for number in [1, 5, 3] as [UInt32] { _ = claims.take(id(number), base: id(number - 1)) }
    #expect(claims.take(id(9), base: nil).taken == id(5))
    #expect(claims.take(id(4), base: nil).taken == id(3))
  }
}
