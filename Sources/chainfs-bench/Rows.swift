import Foundation
import HostSystem

// The rows, in the order of the table.

extension Row {
  static let all: [Row] = reads + writes + flushes + loops + depths + streams + controls

  /// A row of fio's on images that are there.
  private static func fio(
    _ name: String, _ unit: Unit, _ options: String, isWrite: Bool = false, isCached: Bool = false,
    share: Int? = nil, place: Place = .memory, isFresh: Bool = false, needs: Needs = .flatFile,
    isLong: Bool = false,
    on images: @escaping @Sendable (Plan, String) throws -> ServedImage = Images.allocated
  ) -> Row {
    let job = Fio(options: options, isWrite: isWrite, share: share)
    return Row(
      name: name, unit: unit, place: place, needs: needs, isFresh: isFresh, isLong: isLong,
      prepare: { plan, directory in
        var image = try images(plan, directory)
        image.isCached = isCached
        return image
      },
      work: { turn in
        try turn.serving { export in
          try job.run(
            on: export, unit: unit, seconds: turn.plan.seconds, size: turn.plan.diskSize)
        }
      })
  }

  private static let one = "--direct=1 --ioengine=psync --bs=4k"
  private static let many = "--direct=1 --ioengine=libaio --bs=4k --iodepth=16 --numjobs=4"

  private static let reads = [
    fio("random read 4 KiB QD1", .operations, "--rw=randread \(one)"),
    fio("random read 4 KiB 4x16", .operations, "--rw=randread \(many)"),
    fio("sequential read 1 MiB direct", .throughput, "--rw=read --direct=1 --bs=1M"),
    fio(
      "sequential read 1 MiB buffered", .throughput,
      "--rw=read --bs=1M --invalidate=1 --loops=1", isCached: true),
    fio(
      "re-read of a cached range", .throughput,
      "--rw=read --bs=1M --invalidate=0 --filesize=64M --ramp_time=1", isCached: true),
  ]

  private static let writes = [
    fio("random write 4 KiB in place QD1", .operations, "--rw=randwrite \(one)", isWrite: true),
    fio("random write 4 KiB in place 4x16", .operations, "--rw=randwrite \(many)", isWrite: true),
    // One write to each cluster, so that each is a copy.
    fio(
      "COW write 4 KiB QD1", .operations, "--rw=randwrite \(one) --blockalign=64k", isWrite: true,
      share: 16, isFresh: true, needs: .chain, on: Images.overlay),
    fio(
      "COW write 4 KiB 4x16", .operations,
      "--rw=randwrite \(many) --blockalign=64k --offset_increment=25% --size=25%", isWrite: true,
      share: 64, isFresh: true, needs: .chain, on: Images.overlay),
    fio(
      "sequential write 1 MiB allocated", .throughput, "--rw=write --direct=1 --bs=1M",
      isWrite: true),
    fio(
      "sequential write 1 MiB empty", .throughput,
      "--rw=write --direct=1 --bs=1M", isWrite: true, share: 1, isFresh: true,
      on: Images.blank),
  ]

  private static let flushes = [
    fio(
      "write 4 KiB and fsync in place", .operations, "--rw=randwrite --bs=4k --fsync=1",
      isWrite: true, place: .disk),
    fio(
      "write 4 KiB and fsync COW", .operations,
      "--rw=randwrite --bs=4k --blockalign=64k --fsync=1", isWrite: true, place: .disk,
      isFresh: true, on: Images.overlay),
  ]

  /// mkfs, a copied tree and a sync on a loop device.
  private static func loop(_ name: String, options: String) -> Row {
    Row(
      name: name, unit: .seconds, isFresh: true, prepare: Images.blank,
      work: { turn in
        var turn = turn
        turn.image.isCached = true
        return try turn.serving { export in
          let before = try export.processorTime()
          let start = ContinuousClock.now
          try Tool.run(
            """
            device=$(losetup \(options) -f --show \(export.file))
            trap 'umount loop 2> /dev/null || true; losetup -d $device' EXIT
            mkdir -p loop
            mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 $device
            mount $device loop
            cp -r /usr/include loop
            sync -f loop
            """, in: turn.directory)
          let took = (ContinuousClock.now - start) / .seconds(1)
          return Sample(
            value: took,
            processorTime: export.processes.isEmpty
              ? nil : (try export.processorTime() - before) / 1000)
        }
      })
  }

  private static let loops = [
    loop("loop device: mkfs, copy, sync", options: ""),
    loop("loop device, direct: mkfs, copy, sync", options: "--direct-io=on"),
  ]

  private static let depths = [1, 8, 64, 256, 1000].flatMap { depth -> [Row] in
    let isLong = depth != 1 && depth != 256
    let chain: @Sendable (Plan, String) throws -> ServedImage = {
      try Images.chain(depth: depth, $0, $1)
    }
    return [
      Row(
        name: "open at depth \(depth)", unit: .seconds, needs: .chain, isLong: isLong,
        prepare: chain,
        work: { turn in
          let start = ContinuousClock.now
          return try turn.serving { export in
            Sample(
              value: (ContinuousClock.now - start) / .seconds(1),
              memory: try export.residentMemory())
          }
        }),
      fio(
        "random read 4 KiB at depth \(depth)", .operations, "--rw=randread \(one) --ramp_time=1",
        needs: .chain, isLong: isLong, on: chain),
      fio(
        "sequential read 1 MiB at depth \(depth)", .throughput, "--rw=read --direct=1 --bs=1M",
        needs: .chain, isLong: isLong, on: chain),
    ]
  }

  private static let streams = [
    Row(
      name: "stream, idle", unit: .throughput, needs: .stream, isFresh: true,
      prepare: Images.overlay,
      work: { turn in
        try turn.serving { export in
          let before = try export.processorTime()
          let start = ContinuousClock.now
          try Streaming.run(export)
          let took = (ContinuousClock.now - start) / .seconds(1)
          return Sample(
            value: Double(turn.plan.diskSize) / took,
            processorTime: (try export.processorTime() - before) / 1000
              / Double(turn.plan.diskSize),
            memory: try export.residentMemory())
        }
      }),
    Row(
      name: "random read 4 KiB while a stream runs", unit: .operations, needs: .stream,
      isFresh: true, prepare: Images.overlay,
      work: { turn in
        try turn.serving { export in
          try Streaming.start(export)
          return try Fio(options: "--rw=randread \(one)").run(
            on: export, unit: .operations, seconds: 1, size: turn.plan.diskSize)
        }
      }),
  ]

  private static let controls = [
    Row(
      name: "status read", unit: .microseconds, needs: .stream, prepare: Images.allocated,
      work: { turn in
        try turn.serving { export in
          let place = Streaming.control(export, "status")
          let took = try (0..<2000).map { _ in
            let start = ContinuousClock.now
            let file = try SystemCall.open(place, flags: 0)
            var bytes = [UInt8](repeating: 0, count: 4096)
            var span = bytes.mutableRawSpan
            _ = try SystemCall.read(file.raw, into: &span, at: 0)
            return (ContinuousClock.now - start) / .microseconds(1)
          }.sorted()
          return Sample(value: took[1000], median: took[1000], slow: took[1980])
        }
      })
  ]
}

/// A stream of chainfs's, by its control files.
enum Streaming {
  /// A control file of the served device.
  static func control(_ export: Export, _ name: String) -> String {
    let mountpoint = export.file.dropLast("/vda".count)
    return "\(mountpoint)/.jobs/vda/\(name)"
  }

  static func start(_ export: Export) throws {
    try Tool.run("echo > \(control(export, "stream"))")
  }

  static func run(_ export: Export) throws {
    try start(export)
    // Read to its end once the job has ended.
    try Tool.run(
      "cat \(control(export, "wait")); grep -qx 'state: completed' \(control(export, "status"))")
  }
}
