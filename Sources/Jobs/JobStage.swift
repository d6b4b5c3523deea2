/// Where a job stands, in QEMU's words. The raw values are those of QMP.
///
///     created -> running <-> paused
///                   |                        success: waiting -> pending -> concluded
///                   `-> ... -> null          else:           aborting -> concluded
package enum JobStage: String, Sendable, CaseIterable {
  /// It was made, and nothing of it goes on yet.
  case created
  /// It copies, or waits for its turn.
  case running
  /// It is held, by a user or by an error.
  case paused
  /// It has copied everything; in QEMU it would wait for others of its transaction here.
  case waiting
  /// Only the new header is missing.
  case pending
  /// It ends without a new header.
  case aborting
  /// It is over, and its result can be asked for.
  case concluded
  /// It is gone.
  case null
}
