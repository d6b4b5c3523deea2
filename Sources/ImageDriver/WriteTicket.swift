// The right to give a guest range a home.
//
// The image reserved the guest clusters (other writers of them wait) and the host clusters (counted,
// not yet pointed to). The holder writes every byte of the range and commits; only then do tables
// point there. A ticket that is dropped gives both back, and nothing has changed.
//
// With extended L2 entries the range is whole subclusters: it may begin and end inside of a cluster,
// and what is left of its host clusters stays unused.

package import HostSystem

/// A reservation of guest clusters and of the host run that will hold the range.
package struct WriteTicket: ~Copyable {
  /// The range to be filled, in whole units of allocation: it may reach beyond the end of the disk.
  package let guest: GuestRange
  /// Where their bytes go, one run of the same length.
  package let host: HostOffset
  /// Whoever handed the ticket out; nil once the ticket has ended.
  private var owner: Qcow2Image?
  let reservation: Reservation

  init(owner: Qcow2Image, reservation: Reservation, guest: GuestRange, host: HostOffset) {
    self.owner = owner
    self.reservation = reservation
    self.guest = guest
    self.host = host
  }

  /// Makes the tables point to the range. All its bytes must have been written.
  package consuming func commit() throws(ImageError) {
    guard let owner = owner.take() else { preconditionFailure("a ticket ended twice") }
    try owner.commit(reservation, host: host)
  }

  deinit {
    // Forgotten, or given up after an error: nothing was changed.
    owner?.abandon(reservation, host: host)
  }
}

/// What a ticket holds of the image's state.
struct Reservation: Sendable, Equatable {
  /// What the holder fills: subclusters of the disk, numbered from its start.
  var units: Range<UInt64>
  /// The subclusters of a cluster.
  let subclusters: UInt64
  /// The slice of the L2 table that maps them all; it stays in memory while the ticket lives.
  var slice: UInt64
  /// The host clusters were claimed for the ticket; otherwise they belong to the guest clusters.
  var isClaimed: Bool

  /// The guest clusters that other writers keep away from.
  var clusters: Range<UInt64> {
    units.lowerBound / subclusters..<(units.upperBound + subclusters - 1) / subclusters
  }
}
