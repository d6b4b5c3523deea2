/// Where a row's images lie.
enum Place: Sendable {
  case memory
  case disk
}

/// What a row's figure counts.
enum Unit: String, Codable, Sendable {
  case operations = "ops/s"
  case throughput = "MiB/s"
  case seconds = "s"
  case microseconds = "us"

  /// More of it is better.
  var growsWithSpeed: Bool { self == .operations || self == .throughput }
}

/// One kind of work, done by every peer that can.
struct Row: Sendable {
  /// What the table calls it.
  var name: String
  /// What its figure counts.
  var unit: Unit
  /// Where its images lie.
  var place = Place.memory
  /// What it asks of a peer.
  var needs = Needs.flatFile
  /// The work changes the images: each turn of each peer begins with new ones.
  var isFresh = false
  /// Not for a first look.
  var isLong = false
  /// Makes the images.
  var prepare: @Sendable (Plan, String) throws -> ServedImage
  /// Does the work once.
  var work: @Sendable (Turn) throws -> Sample

  /// What the work of one turn has to do with.
  struct Turn {
    var peer: any Peer
    var image: ServedImage
    var plan: Plan
    var directory: String
  }

  /// All turns of all peers, in turns; chainfs is the first of them.
  func measure(_ peers: [any Peer], _ plan: Plan, _ directory: String) throws -> [Figures] {
    let able = peers.filter { $0.serves(needs) }
    var samples = able.map { _ in [Sample]() }
    var failed: Set<Int> = []
    var image = try prepare(plan, directory)
    for turn in 0..<plan.turns {
      for (index, peer) in able.enumerated() {
        if failed.contains(index) { continue }
        if isFresh, turn > 0 || index > 0 { image = try prepare(plan, directory) }
        do {
          samples[index].append(
            try work(Turn(peer: peer, image: image, plan: plan, directory: directory)))
        } catch {
          // A peer that cannot do the work has no figure in this row; we have no such excuse.
          if index == 0 { throw error }
          Tool.say("\(peer.name) fails at it: \(error)")
          failed.insert(index)
          samples[index] = []
        }
      }
    }
    return zip(able, samples).compactMap { Figures(peer: $0.name, $1) }
  }
}

extension Row.Turn {
  /// Serves the image while `body` runs.
  func serving<Result>(_ body: (Export) throws -> Result) throws -> Result {
    let export = try peer.serve(image, in: directory)
    do {
      let result = try body(export)
      try export.stop()
      return result
    } catch {
      // The first error counts; what is still mounted goes with the directory.
      do { try export.stop() } catch {}
      throw error
    }
  }
}
