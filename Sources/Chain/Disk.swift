internal import HostSystem
internal import ImageDriver
internal import Synchronization

// One disk: a named chain, seen as flat bytes.
//
//     read      active image's mapping --unallocated--> merged map --> a layer, or zero
//     write     active image's ticket; bytes that it lacks are read through the disk; commit
//     stream    the same ticket without new bytes
//
// The chain is an immutable value (`DiskLayers`) that is swapped as a whole. Everything that reads or
// writes bytes holds the gate shared; snapshot, rebase, growing and the release of freed clusters
// hold it exclusively, so they see no request in flight and no request sees half a change.
//
// Lock: gate > tickets of the active image > its allocator and tables > merged map. Nothing below
// takes the gate again: functions that are handed a `DiskLayers` run under it.

/// A mounted disk: the active image of a chain with the layers below it.
///
/// Any number of threads may call anything at once. Ranges have to lie inside the disk; what a write
/// beyond the end means is the caller's rule.
package final class Disk: Sendable {
  /// The device's name.
  package let name: String
  /// Whether the disk can only be read.
  package let isReadOnly: Bool

  /// How the disk was opened.
  package let configuration: DeviceConfiguration
  let timeSource: any TimeSource
  let files: any ImageFiles
  let gate = SharedGate()
  let map: MergedMap
  /// That of all maps over the same layers.
  let era: TableEra
  let inflated: InflatedClusters
  let load: GuestLoad
  let flusher = BackgroundFlusher()
  /// Clusters that were freed are used again; not where another disk reads from the active image too.
  let reusesFreed: Bool
  /// The names of one layer's internal snapshots as views have them: those that were asked for last.
  let snapshotNames = Monitor<SnapshotNames?>(nil)

  // Read under the gate's shared side, replaced under its exclusive side; nil after `close`.
  private let current: Monitor<DiskLayers?>
  // Acquire and release, so that who sees the new size sees the grown image.
  private let size: Atomic<UInt64>
  // Relaxed: it is a hint for those outside of the gate.
  private let cluster: Atomic<Int>
  /// Whether anything was written since the last flush began; set when a change ends, for a flush
  /// that began in its middle has not seen all of it. Relaxed: it only saves idle flushes.
  let hasWrites = Atomic<Bool>(false)

  /// A disk, `outer` being the one around it if it is an inner one: their guest is the same.
  init(
    layers: DiskLayers, configuration: DeviceConfiguration, timeSource: any TimeSource,
    files: any ImageFiles, around outer: Disk? = nil
  ) {
    load = outer?.load ?? GuestLoad()
    reusesFreed = outer == nil
    name = configuration.name
    isReadOnly = layers.writable == nil
    let clusterSize = layers.active.image.clusterSize
    self.configuration = configuration
    self.timeSource = timeSource
    self.files = files
    era = outer?.era ?? TableEra()
    map = MergedMap(
      clusterSize: clusterSize, budget: configuration.mapCacheBytes, era: era)
    inflated = InflatedClusters(budget: 8 << 20)
    current = Monitor(layers)
    size = Atomic(layers.active.image.virtualSize)
    cluster = Atomic(clusterSize)
  }

  /// The size of the disk in bytes.
  package var virtualSize: UInt64 { size.load(ordering: .acquiring) }

  /// The size of a request that is served best: the active image's cluster. A snapshot may change it.
  package var clusterSize: Int { cluster.load(ordering: .relaxed) }

  /// How busy the guest keeps the disk now.
  package var guestLoad: GuestLoadSample { load.sample }
}

// MARK: - The chain

extension Disk {
  /// Runs a body on the chain as it is, and keeps it so until the body ends.
  // Lock: the gate, shared. The body must not call anything that takes the gate.
  func withLayers<Result>(
    _ body: (DiskLayers) throws(ChainError) -> Result
  ) throws(ChainError) -> Result {
    try gate.shared { () throws(ChainError) -> Result in
      guard let layers = current.withLock({ $0 }) else { throw .closed(disk: name) }
      return try body(layers)
    }
  }

  /// Runs a body while nothing else uses the disk; the chain that it returns takes effect.
  // Lock: the gate, exclusive.
  func changeLayers(
    _ body: (DiskLayers) throws(ChainError) -> DiskLayers?
  ) throws(ChainError) {
    // The old chain is let go after the gate: that may close files, which may take a while.
    _ = try gate.exclusive { () throws(ChainError) -> DiskLayers in
      let layers = try layersAlone()
      replaceLayers(with: try body(layers))
      return layers
    }
  }

  /// The chain, for who holds the gate exclusively.
  func layersAlone() throws(ChainError) -> DiskLayers {
    guard let layers = current.withLock({ $0 }) else { throw .closed(disk: name) }
    return layers
  }

  /// Puts another chain in force, for who holds the gate exclusively; nil closes the disk.
  func replaceLayers(with changed: DiskLayers?) {
    current.withLock { $0 = changed }
    if let image = changed?.active.image {
      size.store(image.virtualSize, ordering: .releasing)
      cluster.store(image.clusterSize, ordering: .relaxed)
    }
  }

  /// The active image for writing.
  func writable(_ layers: DiskLayers) throws(ChainError) -> any WritableImage {
    guard let image = layers.writable else { throw .readOnly(disk: name) }
    return image
  }

  func checkInside(_ offset: GuestOffset, _ length: UInt64) {
    let size = virtualSize
    precondition(
      offset.rawValue <= size && length <= size - offset.rawValue, "a range beyond the disk")
  }
}
