// The same disk as one image and as a chain of up to 1000: what opens, reads and is held.

extension Row {
  static let depths = ([1] + Depth.deeper).map { depth in
    Row(
      parts: [
        Part(name: Depth.opening.name(at: depth), unit: .milliseconds),
        Part(name: Depth.random.name(at: depth), unit: .operations),
        Part(name: Depth.sequential.name(at: depth), unit: .throughput),
      ],
      needs: .depth, isLong: depth != 1 && depth != 256,
      prepare: { try Images.chain(depth: depth, $0, $1) },
      work: { turn in
        try turn.serving { export in
          let opening = Sample(
            value: (export.openingSeconds ?? 0) * 1000, memory: try export.residentMemory())
          let random = Fio(options: "--rw=randread \(one)")
          let sequential = Fio(options: "--rw=read \(large)")
          let (plan, size) = (turn.plan, turn.image.size)
          // Tables are read once, by a run that does not count.
          _ = try random.run(on: export, unit: .operations, seconds: plan.warmUpSeconds, size: size)
          return [
            opening,
            try random.run(on: export, unit: .operations, seconds: plan.seconds, size: size),
            try sequential.run(on: export, unit: .throughput, seconds: plan.seconds, size: size),
          ]
        }
      })
  }
}

/// What is measured at each depth.
enum Depth: String {
  case opening = "open"
  case random = "random read 4 KiB"
  case sequential = "sequential read 1 MiB"

  /// What is compared with depth 1.
  static let deeper = [8, 64, 256, 1000]

  /// The line of the table.
  func name(at depth: Int) -> String { "\(rawValue) at depth \(depth)" }
}
