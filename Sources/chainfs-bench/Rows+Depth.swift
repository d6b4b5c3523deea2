// The same disk as one image and as a chain of up to 1000: what opens, reads and is held. Each turn measures
// depth 1 right before the other depth, since figures minutes apart say nothing about each other here.

extension Row {
  static let depths =
    [
      Row(
        parts: Depth.parts(at: 1), needs: .depth, prepare: { try Images.chain(depth: 1, $0, $1) },
        work: { try Depth(of: $0).samples })
    ] + [8, 64, 256, 1000].map(depth)

  private static func depth(_ depth: Int) -> Row {
    Row(
      parts: Depth.parts(at: depth) + Depth.comparison(of: depth), needs: .depth,
      isLong: depth != 256,
      prepare: { plan, directory in
        _ = try Images.chain(depth: 1, plan, directory)
        return try Images.chain(depth: depth, plan, directory)
      },
      work: { turn in
        var shallow = turn
        shallow.image.image = Images.top(ofDepth: 1)
        let one = try Depth(of: shallow)
        let deep = try Depth(of: turn)
        return deep.samples + (try deep.samples(against: one))
      })
  }
}

/// What one chain gave in one turn.
struct Depth {
  private var opening: Sample
  private var random: Sample
  private var sequential: Sample

  /// The lines of a depth.
  static func parts(at depth: Int) -> [Row.Part] {
    [
      Row.Part(name: "open at depth \(depth)", unit: .milliseconds),
      Row.Part(name: "random read 4 KiB at depth \(depth)", unit: .operations),
      Row.Part(name: "sequential read 1 MiB at depth \(depth)", unit: .throughput),
    ]
  }

  /// The lines that compare a depth with depth 1.
  static func comparison(of depth: Int) -> [Row.Part] {
    ["CPU of a 4 KiB read", "time of a sequential read", "memory held"].map {
      Row.Part(name: "depth \(depth) against 1: \($0)", unit: .times)
    }
  }

  /// Opens the image of a turn and reads it.
  init(of turn: Row.Turn) throws {
    let (plan, size) = (turn.plan, turn.image.size)
    let randomly = Fio(options: "--rw=randread \(Row.one)")
    let inOrder = Fio(options: "--rw=read \(Row.large)")
    (opening, random, sequential) = try turn.serving { export in
      let opening = Sample(
        value: (export.openingSeconds ?? 0) * 1000, memory: try export.residentMemory())
      // Tables are read once, by a run that does not count.
      _ = try randomly.run(on: export, unit: .operations, seconds: plan.warmUpSeconds, size: size)
      return (
        opening,
        try randomly.run(on: export, unit: .operations, seconds: plan.seconds, size: size),
        try inOrder.run(on: export, unit: .throughput, seconds: plan.seconds, size: size)
      )
    }
  }

  /// A sample for each part.
  var samples: [Sample] { [opening, random, sequential] }

  /// A sample for each part of the comparison: how many times as much this one takes.
  func samples(against other: Depth) throws -> [Sample] {
    guard let time = random.processorTime, let otherTime = other.random.processorTime,
      let memory = sequential.memory, let otherMemory = other.sequential.memory
    else { throw BenchError("nobody's processor time and memory were measured") }
    return [
      Sample(value: time / otherTime), Sample(value: other.sequential.value / sequential.value),
      Sample(value: memory / otherMemory),
    ]
  }
}
