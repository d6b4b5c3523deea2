internal import HostSystem
internal import ImageDriver

// A guest reads a compressed cluster in pieces of some KiB, and each piece would inflate the whole
// cluster again. So the last few inflated clusters are kept. A compressed cluster never changes in
// place (chainfs and QEMU write such a cluster anew, uncompressed), so what is kept stays true for as
// long as anything maps to it.

/// The compressed clusters that were inflated last.
final class InflatedClusters: Sendable {
  private struct Entry {
    var layer: LayerID
    var span: CompressedSpan
    var bytes: [UInt8]
  }

  private struct State {
    var entries: [Entry] = []
    var bytes = 0
    // Counted where a cluster is kept, never where one is found.
    var inflations: UInt64 = 0
    var evictions: UInt64 = 0
  }

  private let budget: Int
  private let state = Monitor(State())

  /// Keeps at most `budget` bytes.
  init(budget: Int) {
    self.budget = budget
  }

  /// Reads a part of a compressed cluster, or all of it.
  func read(
    _ compressed: CompressedSpan, of layer: Layer, skip: Int, into bytes: inout MutableRawSpan
  ) throws(ChainError) {
    if bytes.byteCount == layer.image.clusterSize {
      // Nothing is left of it to be read later.
      return try inflate(compressed, of: layer, into: &bytes)
    }
    // The array is taken out under the lock and copied from after it.
    let kept = state.withLock { state in
      state.entries.first { $0.layer == layer.id && $0.span == compressed }?.bytes
    }
    if let kept {
      // The array outlives the span of its bytes, which ends with this line.
      return unsafe bytes.copy(kept.span.bytes.extracting(skip..<skip + bytes.byteCount))
    }
    var cluster = [UInt8](repeating: 0, count: layer.image.clusterSize)
    var span = cluster.mutableSpan
    // As above; every bit pattern is a byte.
    var whole = unsafe span.mutableBytes
    try inflate(compressed, of: layer, into: &whole)
    unsafe bytes.copy(cluster.span.bytes.extracting(skip..<skip + bytes.byteCount))
    keep(Entry(layer: layer.id, span: compressed, bytes: cluster))
  }

  /// What the clusters take, and how often one had to be inflated for a part of it.
  var figures: CacheFigures {
    state.withLock { state in
      CacheFigures(
        bytes: UInt64(state.bytes), limit: UInt64(budget), misses: state.inflations,
        evictions: state.evictions)
    }
  }

  private func inflate(
    _ span: CompressedSpan, of layer: Layer, into bytes: inout MutableRawSpan
  ) throws(ChainError) {
    do {
      try layer.image.read(.compressed(span), skip: 0, into: &bytes)
    } catch {
      throw .image(error)
    }
  }

  /// Keeps an inflated cluster, and lets the oldest go while there are too many.
  private func keep(_ entry: Entry) {
    state.withLock { state in
      state.inflations += 1
      state.entries.append(entry)
      state.bytes += entry.bytes.count
      while state.bytes > budget, !state.entries.isEmpty {
        state.bytes -= state.entries.removeFirst().bytes.count
        state.evictions += 1
      }
    }
  }
}
