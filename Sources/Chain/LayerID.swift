/// Names one layer of a disk for as long as the disk is open.
///
/// Numbers grow upward: the lowest layer gets the smallest one, and a snapshot's new layer a larger
/// one than any before it. They are never used twice, so an extent that remembers its layer can tell
/// that the layer has left the chain.
package struct LayerID: RawRepresentable, Hashable, Comparable, Sendable {
  /// The number itself, which means nothing outside of one open disk.
  package var rawValue: UInt32

  /// Makes the name from its number.
  package init(rawValue: UInt32) {
    self.rawValue = rawValue
  }

  /// The name of the layer that is put above this one next.
  package var next: LayerID { LayerID(rawValue: rawValue + 1) }

  /// Lower layers come first.
  package static func < (one: LayerID, other: LayerID) -> Bool {
    one.rawValue < other.rawValue
  }
}
