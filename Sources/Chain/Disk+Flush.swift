internal import BlockIO
internal import HostSystem
internal import ImageDriver
internal import Synchronization

extension Disk {
  /// Makes everything durable that was written before the call.
  ///
  /// When it returns, the bytes survive power loss. Flushes of several threads share their work.
  package func flush() throws(ChainError) {
    if isReadOnly { return }
    try withLayers { layers throws(ChainError) in
      hasWrites.store(false, ordering: .relaxed)
      let image = try writable(layers)
      do throws(ImageError) { try image.flush() } catch {
        // What was not written is tried again by the background thread, should nobody else.
        hasWrites.store(true, ordering: .relaxed)
        throw .image(error)
      }
    }
    try releaseFreed()
  }

  /// Lets clusters be used again that no durable table points to any more.
  private func releaseFreed() throws(ChainError) {
    if !reusesFreed { return }
    let isWaiting = try withLayers { layers throws(ChainError) in
      layers.writable?.hasFreedClusters ?? false
    }
    if !isWaiting { return }
    // A reader or writer that looked its mapping up before the cluster was freed may still be on its
    // way to the old place. Under the exclusive gate there is none.
    try changeLayers { layers throws(ChainError) in
      let image = try writable(layers)
      try onImage { () throws(ImageError) in try image.releaseFreed() }
      return layers
    }
  }

  /// Flushes if there is anything to flush; the background thread's work.
  ///
  /// The guest hears of a failure by its own next flush: the storage remembers one that lost anything,
  /// and repeats what was not written. `tell` is for the log, should the guest never flush.
  func flushInBackground(_ tell: (ChainError) -> Void) {
    if !hasWrites.load(ordering: .relaxed) { return }
    do { try flush() } catch { tell(error) }
  }

  /// Makes everything durable, gives unused space back and closes all files.
  ///
  /// Every call after it is refused. If it fails, the images are released nevertheless and are as
  /// after a crash: valid, perhaps with leaks.
  package func close() throws(ChainError) {
    flusher.stop()
    var failure: ChainError?
    try changeLayers { layers throws(ChainError) in
      do throws(ChainError) {
        if let image = layers.writable {
          try onImage { () throws(ImageError) in try image.close() }
        }
      } catch {
        failure = error
      }
      for layer in layers.all { layer.use.closeNow() }
      return nil
    }
    if let failure { throw failure }
  }
}
