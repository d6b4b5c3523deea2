import Chain
import HostSystem
import TestSupport

extension Session {
  /// Streams into a layer below the active image, and is at times given up; the guest comes in between.
  func streamInner() throws {
    guard let disk else { return }
    let chain = expectation.oldChain
    let places = chain.indices.dropFirst().dropLast().filter { !template.isRaw(chain[$0]) }
    guard let place = places.randomElement(using: &random) else { return }
    let basePlace = random.oneIn(2) ? nil : Int.random(in: place + 1..<chain.count, using: &random)
    let operation = basePlace == nil ? "stream into a layer" : "stream into a layer to a base"
    begin(operation)
    let layers = try disk.layers()
    let inner: InnerDisk
    do { inner = try disk.openInner(layers[place].id) } catch {
      // What an earlier one freed there is given back by the next mount.
      guard case .layerRefused = error else { throw error }
      return
    }
    expectation.inner.insert(chain[place])
    let base = basePlace.map { layers[$0].id }
    do {
      for part in StreamPart.allCases {
        let length = try inner.disk.streamLength(of: part)
        let step = max(length / 3, 1)
        var position: UInt64 = 0
        while position < length {
          let range = GuestRange(
            offset: GuestOffset(position), length: min(step, length - position))
          _ = try inner.disk.populate(part, range, base: base)
          if random.oneIn(2) { try inner.disk.flush() }
          try guestOperation()
          begin(operation)
          position += step
        }
      }
      if random.oneIn(4) { return try inner.end() }
      expectation.chains = [chain, Array(chain[...place] + (basePlace.map { chain[$0...] } ?? []))]
      try inner.disk.rebase(to: base)
      expectation.chains.removeFirst()
      try inner.adopt()
      try inner.end()
    } catch {
      try? inner.end()
      throw error
    }
    guard try disk.layers().map(\.path) == expectation.oldChain else {
      throw Fault("the disk has another chain than its layer")
    }
    try compare()
  }
}
