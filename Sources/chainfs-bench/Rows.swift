// The rows, in the order of the table.

extension Row {
  static let all: [Row] = reads + writes + flushes + loops + depths + streams + [status]

  /// A row of fio's.
  private static func fio(
    _ name: String, _ unit: Unit, _ options: String, isWrite: Bool = false,
    share: Int? = nil, place: Place = .memory, needs: Needs = .flatFile, isFresh: Bool = false,
    on images: @escaping @Sendable (Plan, String) throws -> ServedImage = Images.allocated
  ) -> Row {
    let job = Fio(options: options, isWrite: isWrite, share: share)
    return Row(
      name, unit, place: place, needs: needs, isFresh: isFresh,
      on: { plan, directory in
        var image = try images(plan, directory)
        image.isWrittenDirectly = job.isDirectWrite
        return image
      },
      work: { turn in
        try turn.serving { export in
          try job.run(
            on: export, unit: unit, seconds: turn.plan.seconds, size: turn.image.size)
        }
      })
  }

  /// One client that waits for each of its small requests.
  static let one = "--direct=1 --ioengine=psync --bs=4k"
  private static let many = "--direct=1 --ioengine=libaio --bs=4k --iodepth=16 --numjobs=4"
  /// Large requests past the page cache, one after the other.
  static let large = "--direct=1 --ioengine=psync --bs=1M"

  private static let reads = [
    fio("random read 4 KiB QD1", .operations, "--rw=randread \(one)"),
    fio("random read 4 KiB 4x16", .operations, "--rw=randread \(many)"),
    fio("sequential read 1 MiB direct", .throughput, "--rw=read \(large)"),
    // Once through the disk: a second time would be a re-read.
    fio(
      "sequential read 1 MiB buffered", .throughput, "--rw=read --bs=1M --invalidate=1",
      share: 1),
    fio(
      "re-read of a cached range", .throughput,
      "--rw=read --bs=1M --invalidate=0 --size=64M --ramp_time=1"),
  ]

  private static let writes = [
    fio("random write 4 KiB in place QD1", .operations, "--rw=randwrite \(one)", isWrite: true),
    fio("random write 4 KiB in place 4x16", .operations, "--rw=randwrite \(many)", isWrite: true),
    // One write to each cluster, so that each is a copy.
    fio(
      "COW write 4 KiB QD1", .operations, "--rw=randwrite \(one) --blockalign=64k", isWrite: true,
      share: 16, needs: .overlay, isFresh: true, on: Images.overlay),
    fio(
      "COW write 4 KiB 4x16", .operations,
      "--rw=randwrite \(many) --blockalign=64k --offset_increment=25% --size=25%", isWrite: true,
      share: 64, needs: .overlay, isFresh: true, on: Images.overlay),
    fio("sequential write 1 MiB allocated", .throughput, "--rw=write \(large)", isWrite: true),
    fio(
      "sequential write 1 MiB buffered", .throughput, "--rw=write --bs=1M --end_fsync=1",
      isWrite: true),
    fio(
      "sequential write 1 MiB empty overlay", .throughput, "--rw=write \(large)", isWrite: true,
      share: 1, isFresh: true, on: Images.emptyOverlay),
  ]

  private static let flushes = [
    fio(
      "write 4 KiB and fsync in place", .operations, "--rw=randwrite --bs=4k --fsync=1",
      isWrite: true, place: .disk),
    // The raw file beside it is written in place.
    fio(
      "write 4 KiB and fsync COW", .operations,
      "--rw=randwrite --bs=4k --blockalign=64k --fsync=1", isWrite: true,
      share: 16, place: .disk, isFresh: true, on: Images.overlay),
  ]

  private static let loops = [
    loop("loop device: mkfs, copy, sync", options: ""),
    loop("loop device, direct: mkfs, copy, sync", options: "--direct-io=on"),
  ]

  /// A file system on a loop device on the served file: made, filled with a tree, flushed, unmounted.
  private static func loop(_ name: String, options: String) -> Row {
    Row(
      name, .seconds, isFresh: true,
      on: { plan, directory in
        // The tree is in the host's page cache for whoever comes first, too.
        try Tool.run("find /usr/include -type f -exec cat {} + > /dev/null")
        return try Images.blank(plan, directory)
      },
      work: { turn in
        try turn.serving { export in
          let before = try export.processorTime()
          let seconds = try Tool.seconds(
            of: """
              device=$(losetup \(options) -f --show \(export.file))
              trap 'umount loop 2> /dev/null || true; losetup -d $device' EXIT
              mkdir -p loop
              mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 $device
              mount $device loop
              cp -r /usr/include loop
              sync -f loop
              umount loop
              """, in: turn.directory)
          return Sample(
            value: seconds,
            processorTime: try export.processorTime(since: before, operations: 1))
        }
      })
  }
}
