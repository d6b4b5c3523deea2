internal import ImageDriver
internal import Synchronization

// A layer in the middle of a chain that a stream copies into, while the disk above goes on.
//
//     disk    active   ...   M   X   Y   base   ...         M reads what X, Y and base lend it
//     inner                  M   X   Y   base   ...         a disk of its own, M is its active image
//
// The stream knows nothing of that: to it, the inner disk is a disk. Both disks have the same objects for
// the layers, so that there is one truth about the tables of M, and each layer's files are open for as
// long as anybody needs them:
//
//     1  M's file is opened once more, for writing; its locks go over     `ImageFiles.writer(over:)`
//     2  the writable object takes M's place in the disk                  under the disk's gate
//     3  clusters come up into M, as into any active image                guests go on
//     4  M's header names the base                                        the inner disk's rebase
//     5  the disk drops X and Y too                                       `adopt`, under the disk's gate
//     6  M's refcounts are settled, and it is a backing layer again       `end`
//
// What the disk and its views know of M stays true all the time, whatever they know it from: M gives up no
// mapping, what it gains reads as what lay below it, and that stays open for whoever goes on
// reading there. New answers come from the writable object (`LayerUse.image`), bytes may come through
// either open file.
//
// One thing an active image does is left out: clusters that it frees are not used again. There are
// none but where M has internal snapshots (tables that a snapshot leaves), and the disk, or a view, may
// know the old place. They stay counted, and M stays marked dirty, until it is opened for writing under a
// later mount, which gives them back.

/// A disk whose active image is a layer of another disk.
package final class InnerDisk: Sendable {
  /// The layer and what is below it, as a disk to stream into. Nobody else may close it.
  package let disk: Disk
  private let outer: Disk
  private let target: LayerID
  private let isOver = Atomic(false)

  init(_ disk: Disk, in outer: Disk, target: LayerID) {
    self.disk = disk
    self.outer = outer
    self.target = target
  }

  /// Drops from the chain around it what a rebase has dropped from the inner disk.
  // Order: the layer's header is durable before; a crash in between leaves a chain on the host that is
  // shorter than the one in memory was, with the same bytes.
  package func adopt() throws(ChainError) {
    let base = try disk.withLayers { layers throws(ChainError) in layers.backing.layers.first }
    try outer.changeLayers { layers throws(ChainError) in
      guard let index = layers.index(of: target) else { throw outer.gone(target, layers) }
      let upper = layers.backing.layers[..<index]
      // Its own objects: those of the inner disk may be older ones of the same layers.
      let lower = layers.backing.layers.filter { layer in base.map { layer.id <= $0.id } ?? false }
      let kept = upper + outer.renamed(lower, topmost: base?.namedAs)
      let backing = try BackingLayers(layers: Array(kept), version: layers.backing.version + 1)
      for layer in layers.backing.layers[index...].dropLast(lower.count) { layer.use.end() }
      return DiskLayers(active: layers.active, writable: layers.writable, backing: backing)
    }
  }

  /// Makes the layer a backing layer again, with all that was copied. Nothing else may use the inner disk
  /// any more. Another call does nothing.
  ///
  /// If it throws, the layer is as after a crash: valid, perhaps with leaks.
  package func end() throws(ChainError) {
    if isOver.exchange(true, ordering: .acquiringAndReleasing) { return }
    var failure: ChainError?
    var unsafeTables = false
    try disk.changeLayers { layers throws(ChainError) in
      let image = try disk.writable(layers)
      do throws(ChainError) {
        try onImage { () throws(ImageError) in
          try image.flush()
          if !image.hasFreedClusters { try image.close() }
        }
      } catch {
        failure = error
        unsafeTables = true
      }
      // Order: nothing is written any more when others are let in.
      image.becomeBacking()
      for layer in layers.all { layer.use.end() }
      return nil
    }
    if unsafeTables { try outer.readAnew(target) }
    if let failure { throw failure }
  }
}
