/// How long the chain of a disk is, and what it takes on the host.
package struct ChainFigures: Sendable, Equatable {
  /// Layers, with the active image.
  package var layerCount: Int
  /// What the files of the active image take.
  package var activeBytes: UInt64
  /// What those of the layers below it take; the growth of a layer that is streamed into is told when that
  /// is over.
  package var backingBytes: UInt64

  /// Figures with all their parts.
  package init(layerCount: Int, activeBytes: UInt64, backingBytes: UInt64) {
    self.layerCount = layerCount
    self.activeBytes = activeBytes
    self.backingBytes = backingBytes
  }
}
