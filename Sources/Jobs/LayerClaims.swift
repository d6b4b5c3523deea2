internal import Chain
internal import HostSystem

// Which layers of a disk its jobs have in hand. A job has those from the one that it copies into down to
// the one above its base: they are written to, or will leave the chain. Its base is not among them, so
// that it can be the target of another job; but nobody else can drop it, for then that job would have
// the layer above the base too.
//
//     layers    9  8  7  6  5  4  3  2  1  0
//     jobs            [6->4)    [3->1)           at once
//                  [7 -> 5)                      refused: 6 is in use
//                     [6->4) [4->2) [2 -> none)  at once

/// The layers that jobs of one disk have in hand.
final class LayerClaims: Sendable {
  /// A claim, to give it back.
  struct Number: Hashable, Sendable {
    fileprivate var rawValue: UInt64
  }

  private struct Claim: Sendable {
    var top: LayerID
    var base: LayerID?

    /// The topmost layer that both have, nil if they have none in common.
    func shared(with other: Claim) -> LayerID? {
      let first = min(top, other.top)
      let isIn = { (claim: Claim) in claim.base.map { $0 < first } ?? true }
      return isIn(self) && isIn(other) ? first : nil
    }
  }

  private struct State {
    var claims: [Number: Claim] = [:]
    var next: UInt64 = 0
  }

  private let state = Monitor(State())

  /// Takes the layers from `top` down to the one above `base`, or gives the topmost of them that another
  /// job has.
  func take(_ top: LayerID, base: LayerID?) -> (number: Number?, taken: LayerID?) {
    let claim = Claim(top: top, base: base)
    return state.withLock { state in
      if let taken = state.claims.values.compactMap({ $0.shared(with: claim) }).max() {
        return (nil, taken)
      }
      state.next += 1
      let number = Number(rawValue: state.next)
      state.claims[number] = claim
      return (number, nil)
    }
  }

  /// The layers that jobs copy into.
  var targets: Set<LayerID> { state.withLock { Set($0.claims.values.map(\.top)) } }

  /// Gives the layers of a claim back.
  func giveBack(_ number: Number) { state.withLock { _ = $0.claims.removeValue(forKey: number) } }
}
