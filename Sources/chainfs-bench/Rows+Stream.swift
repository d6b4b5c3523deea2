// Streams of a whole chain into its overlay, without a speed limit. QEMU's storage daemon streams what it
// exports read-only: a guest could not write meanwhile, but it can read.

extension Row {
  static let streams = [
    idleStream("stream, idle", on: Images.overlay),
    idleStream("stream, idle, on XFS with reflink", place: .disk, on: Images.sharingOverlay),
    Row(
      parts: [
        Part(name: "guest read 4 KiB before a stream", unit: .operations),
        Part(name: "guest read 4 KiB during a stream", unit: .operations),
        Part(name: "guest p99 during a stream, against before", unit: .times),
        Part(name: "stream while a guest reads", unit: .throughput),
      ],
      needs: .jobs, isFresh: true, prepare: Images.largeOverlay, work: busyStream),
  ]

  /// Nobody uses the disk: from the command to the end of the job. CPU is for each MiB.
  private static func idleStream(
    _ name: String, place: Place = .memory,
    on images: @escaping @Sendable (Plan, String) throws -> ServedImage
  ) -> Row {
    Row(
      name, .throughput, place: place, needs: .jobs, isFresh: true, on: images,
      work: { turn in
        try turn.serving { export in
          let jobs = try export.jobs()
          let size = Double(turn.image.size)
          let before = try export.processorTime()
          let start = ContinuousClock.now
          try export.watched(seconds: 120) {
            try jobs.start()
            try jobs.finish()
          }
          return Sample(
            value: size / ((ContinuousClock.now - start) / .seconds(1)),
            processorTime: try export.processorTime(since: before, operations: size),
            memory: try export.residentMemory())
        }
      })
  }

  /// A guest reads before and during the stream. The stream's speed is how far it came while fio was there,
  /// and it has to be running still when fio has ended.
  private static func busyStream(_ turn: Turn) throws -> [Sample] {
    try turn.serving { export in
      let jobs = try export.jobs()
      let guest = Fio(options: "--rw=randread \(one)")
      func read() throws -> Sample {
        try guest.run(
          on: export, unit: .operations, seconds: turn.plan.guestSeconds,
          size: turn.image.size)
      }
      func progress() throws -> Double {
        guard let bytes = try export.watched(seconds: 60, { try jobs.progress() }) else {
          throw BenchError("the stream ended before the guest's reads did: too small a disk")
        }
        return bytes / 1_048_576
      }
      let before = try read()
      try export.watched(seconds: 60) { try jobs.start() }
      let (begin, done) = (ContinuousClock.now, try progress())
      var during = try read()
      // Most of it is the copier's.
      during.processorTime = nil
      let (end, more) = (ContinuousClock.now, try progress())
      try export.watched(seconds: 60) { try jobs.cancel() }
      guard let slow = before.slow, let slower = during.slow else {
        throw BenchError("fio gave no percentiles")
      }
      return [
        before, during, Sample(value: slower / slow),
        Sample(value: (more - done) / ((end - begin) / .seconds(1))),
      ]
    }
  }
}
