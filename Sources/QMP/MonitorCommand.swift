/// The commands of the human monitor. The raw values are QEMU's names.
enum MonitorCommand: String, CaseIterable {
  // In the order in which `help` tells them.
  case blockJobCancel = "block_job_cancel"
  case blockJobComplete = "block_job_complete"
  case blockJobPause = "block_job_pause"
  case blockJobResume = "block_job_resume"
  case blockJobSetSpeed = "block_job_set_speed"
  case blockStream = "block_stream"
  case help
  case info
  case snapshot = "snapshot_blkdev"

  /// A subject of `info`. The raw values are QEMU's names.
  enum Subject: String, CaseIterable {
    case block
    case blockJobs = "block-jobs"

    /// What `help` says of it, with a newline.
    var usage: String {
      switch self {
      case .block:
        // QEMU has -n and -v too; what they tell is in query-named-block-nodes.
        "info block [device] -- show info of one block device or all block devices\n"
      case .blockJobs: "info block-jobs  -- show progress of ongoing block device operations\n"
      }
    }
  }

  /// What `help` says of it in its list.
  var listing: String {
    self == .info
      ? "info [subcommand] -- show various information about the system state\n" : usage
  }

  /// The command of a name, which may also be one that people write for it.
  init?(name: String) {
    switch name {
    case "?": self = .help
    case "block-stream": self = .blockStream
    default: self.init(rawValue: name)
    }
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
