// How long it takes to ask which jobs run, while none does: chainfs by its file, opened, read to its end and
// closed as cat(1) does, QEMU's storage daemon by query-block-jobs on a QMP session that is open already.
// Neither the start of a program nor the reading of JSON is in it.

extension Row {
  static let status = Row(
    "status round trip", .microseconds, needs: .jobs, on: Images.allocated,
    work: { turn in
      try turn.serving { export in
        let jobs = try export.jobs()
        let count = 2000
        // The first ones open what later ones find.
        for _ in 0..<100 { try export.watched(seconds: 60) { try jobs.ask() } }
        let before = try export.processorTime()
        let took = try export.watched(seconds: 120) {
          try (0..<count).map { _ in
            let start = ContinuousClock.now
            try jobs.ask()
            return (ContinuousClock.now - start) / .microseconds(1)
          }.sorted()
        }
        return Sample(
          value: took[count / 2],
          processorTime: try export.processorTime(since: before, operations: Double(count)),
          median: took[count / 2], slow: took[count * 99 / 100],
          memory: try export.residentMemory())
      }
    })
}
