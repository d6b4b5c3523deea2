/// Names one view of a disk for as long as the disk is open.
package enum ViewID: Hashable, Sendable {
  /// The disk as it is now.
  case now
  /// The disk as of a backing layer: that layer with everything below it.
  case layer(LayerID)
  /// The disk as of an internal snapshot, by the layer that keeps it and its place in the directory.
  case snapshot(LayerID, Int)
}

/// What can be said of a view without opening it.
package struct ViewDescription: Sendable, Equatable {
  /// Which view it is.
  package var id: ViewID
  /// The size of the disk that it shows.
  package var size: UInt64
  /// What the files of its layers take on the host.
  package var allocatedBytes: UInt64
  /// The unit in which its topmost layer allocates.
  package var clusterSize: Int
}
