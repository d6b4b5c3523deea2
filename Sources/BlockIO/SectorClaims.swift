internal import HostSystem

// A sector that is encrypted, or that passes the page cache by, is written as a whole, so a write of a
// few bytes reads it, changes it and writes it all. Two such writers must not mix, or one loses its
// bytes; and a reader that sees half of an encrypted sector's new bytes would decrypt to garbage what
// on a plain disk is old or new. So whoever uses sectors says which, and waits for those who came
// before and do not go together with it: writers with anybody, readers with writers. First come, first
// served, so nobody waits for ever. A claim is held across one transfer of the storage below; whoever
// holds one asks for no other of the same file. The claims of an encrypted image lie above those of the
// file that it is in.

/// Keeps those apart who use the same sectors, unless all of them read.
package final class SectorClaims: Sendable {
  /// What a claim is for.
  package enum Use: Sendable {
    /// Beside other readers.
    case reading
    /// Alone.
    case writing
  }

  private struct Claim {
    var number: UInt64
    var sectors: Range<UInt64>
    var use: Use
  }

  private struct State {
    /// A handful, one a thread, in the order in which they came.
    var claims: [Claim] = []
    var nextNumber: UInt64 = 0

    /// An earlier claim has to go first.
    func isBlocked(_ number: UInt64) -> Bool {
      guard let own = claims.firstIndex(where: { $0.number == number }) else { return false }
      let claim = claims[own]
      for other in claims[..<own] where other.sectors.overlaps(claim.sectors) {
        if other.use == .writing || claim.use == .writing { return true }
      }
      return false
    }
  }

  private let state = Monitor(State())

  /// Nobody uses anything yet.
  package init() {}

  /// Runs `body` once nobody else uses the sectors in a way that does not go together with it.
  package func during<Failure: Error>(
    _ use: Use, of sectors: Range<UInt64>, _ body: () throws(Failure) -> Void
  ) throws(Failure) {
    let number = state.withLock { state -> UInt64 in
      state.nextNumber += 1
      state.claims.append(Claim(number: state.nextNumber, sectors: sectors, use: use))
      return state.nextNumber
    }
    defer { state.change { state in state.claims.removeAll { $0.number == number } } }
    // Lock: sectors are claimed below all locks of the image and the chain, above the storage's own.
    state.wait { $0.isBlocked(number) }
    try body()
  }
}
