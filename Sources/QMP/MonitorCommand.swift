/// The commands of the human monitor. The raw values are QEMU's names.
enum MonitorCommand: String, CaseIterable {
  // In the order in which `help` tells them.
  case blockJobCancel = "block_job_cancel"
  case blockJobComplete = "block_job_complete"
  case blockJobPause = "block_job_pause"
  case blockJobResume = "block_job_resume"
  case blockJobSetSpeed = "block_job_set_speed"
  case blockResize = "block_resize"
  case blockStream = "block_stream"
  case cont
  case help
  case info
  case quit
  case snapshot = "snapshot_blkdev"
  case stop

  /// A subject of `info`. The raw values are QEMU's names.
  enum Subject: String, CaseIterable {
    case block
    case blockJobs = "block-jobs"
    case status

    /// What `help` says of it, with a newline.
    var usage: String {
      switch self {
      case .block:
        "info block [-n] [-v] [device] -- show info of one block device or all block devices "
          + "(-n: show named nodes; -v: show details)\n"
      case .blockJobs: "info block-jobs  -- show progress of ongoing block device operations\n"
      case .status: "info status  -- show the current VM status (running|paused)\n"
      }
    }
  }

  /// How a complaint calls it: with its short name, if it has one.
  var title: String { shortName.map { "\(rawValue)|\($0)" } ?? rawValue }

  private var shortName: String? {
    switch self {
    case .cont: "c"
    case .help: "?"
    case .quit: "q"
    case .stop: "s"
    case .blockJobCancel, .blockJobComplete, .blockJobPause, .blockJobResume, .blockJobSetSpeed,
      .blockResize, .blockStream, .info, .snapshot:
      nil
    }
  }

  /// What `help` says of it in its list.
  var listing: String {
    self == .info
      ? "info [subcommand] -- show various information about the system state\n" : usage
  }

  /// The command of a name, which may also be one that people write for it.
  init?(name: String) {
    let short = Self.allCases.first { $0.shortName == name }
    // The last is QMP's name, which people write too.
    guard let command = short ?? Self(rawValue: name == "block-stream" ? "block_stream" : name)
    else { return nil }
    self = command
  }

  /// What `help` says of it, with a newline: QEMU's words.
  var usage: String {
    switch self {
    case .blockJobCancel:
      """
      block_job_cancel [-f] device -- stop an active background block operation (use -f
      \t\t\t if you want to abort the operation immediately
      \t\t\t instead of keep running until data is in sync)

      """
    case .blockJobComplete:
      "block_job_complete device -- stop an active background block operation\n"
    case .blockJobPause:
      "block_job_pause device -- pause an active background block operation\n"
    case .blockJobResume:
      "block_job_resume device -- resume a paused background block operation\n"
    case .blockJobSetSpeed:
      "block_job_set_speed device speed -- set maximum speed for a background block operation\n"
    case .blockResize: "block_resize device size -- resize a block image\n"
    case .cont: "cont|c  -- resume emulation\n"
    case .quit: "quit|q  -- quit the emulator\n"
    case .stop: "stop|s  -- stop emulation\n"
    case .blockStream:
      "block_stream device [speed [base]] -- copy data from a backing file into a block device\n"
    case .help: "help|? [cmd] -- show the help\n"
    case .info: Subject.allCases.map(\.usage).joined()
    case .snapshot:
      """
      snapshot_blkdev [-n] device [new-image-file] [format] -- initiates a live snapshot
      \t\t\tof device. If a new image file is specified, the
      \t\t\tnew image file will become the new root image.
      \t\t\tIf format is specified, the snapshot file will
      \t\t\tbe created in that format.
      \t\t\tThe default format is qcow2.  The -n flag requests QEMU
      \t\t\tto reuse the image found in new-image-file, instead of
      \t\t\trecreating it from scratch.

      """
    }
  }
}
