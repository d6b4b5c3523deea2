/// Where a row's images lie.
enum Place: Sendable {
  case memory
  case disk
}

/// What a figure counts.
enum Unit: String, Codable, Sendable {
  case operations = "ops/s"
  case throughput = "MiB/s"
  case seconds = "s"
  case milliseconds = "ms"
  case microseconds = "us"
  case times = "x"

  /// More of it is better.
  var growsWithSpeed: Bool { self == .operations || self == .throughput }
}

/// One kind of work, done by every peer that can.
struct Row: Sendable {
  /// One figure of the work: a line of the table.
  struct Part: Sendable {
    var name: String
    var unit: Unit
  }

  /// The figures, in the order of the samples that the work gives.
  var parts: [Part]
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
  var work: @Sendable (Turn) throws -> [Sample]

  /// What the work of one turn has to do with.
  struct Turn {
    var peer: any Peer
    var image: ServedImage
    var needs: Needs
    var plan: Plan
    var directory: String
  }

  /// Whether somebody who asks for rows by `word` means this one.
  func matches(_ word: String) -> Bool { parts.contains { $0.name.contains(word) } }

  /// All turns of all peers, in turns; chainfs is the first of them.
  func measure(_ peers: [any Peer], _ plan: Plan, in parent: String) -> [Line] {
    var able = peers.filter { $0.serves(needs) }.map { Progress(peer: $0) }
    do {
      try WorkDirectory.with(in: parent) { directory in
        try takeTurns(&able, plan, directory)
      }
    } catch {
      // No images, no figures, for nobody.
      Tool.say("\(error)")
      for index in able.indices { able[index].fail(error) }
    }
    return parts.enumerated().map { number, part in
      Line(
        row: part.name, unit: part.unit,
        figures: able.compactMap { progress in
          Figures(peer: progress.peer.name, progress.samples.map { $0[number] })
        },
        failures: able.compactMap { progress in
          progress.failure.map { Line.Failure(peer: progress.peer.name, reason: $0) }
        })
    }
  }

  private func takeTurns(_ able: inout [Progress], _ plan: Plan, _ directory: String) throws {
    var image = try prepare(plan, directory)
    for turn in 0..<plan.turns {
      // Each is the first in some turns.
      for place in able.indices {
        let index = (place + turn) % able.count
        if able[index].failure != nil { continue }
        if isFresh, turn > 0 || place > 0 { image = try prepare(plan, directory) }
        let peer = able[index].peer
        do {
          able[index].samples.append(
            try work(
              Turn(peer: peer, image: image, needs: needs, plan: plan, directory: directory)))
        } catch {
          Tool.say("\(peer.name) fails: \(error)")
          able[index].fail(error)
        }
      }
    }
  }

  /// What a peer has given so far. One that has failed has no figure in the row, and no more turns.
  private struct Progress {
    var peer: any Peer
    var samples: [[Sample]] = []
    var failure: String?

    mutating func fail(_ error: any Error) {
      failure = (error as? BenchError)?.summary ?? "\(error)"
      samples = []
    }
  }
}

extension Row {
  /// A row of one figure.
  init(
    _ name: String, _ unit: Unit, place: Place = .memory, needs: Needs = .flatFile,
    isFresh: Bool = false, isLong: Bool = false,
    on images: @escaping @Sendable (Plan, String) throws -> ServedImage,
    work: @escaping @Sendable (Turn) throws -> Sample
  ) {
    self.init(
      parts: [Part(name: name, unit: unit)], place: place, needs: needs, isFresh: isFresh,
      isLong: isLong, prepare: images, work: { [try work($0)] })
  }
}

extension Row.Turn {
  /// Serves the image while `body` runs.
  func serving<Result>(_ body: (Export) throws -> Result) throws -> Result {
    let export = try peer.serve(image, for: needs, in: directory)
    do {
      let result = try body(export)
      try export.stop()
      return result
    } catch {
      // The first error counts; what is still mounted goes with the directory.
      do { try export.stop() } catch { Tool.say("\(peer.name) does not stop: \(error)") }
      throw error
    }
  }
}
