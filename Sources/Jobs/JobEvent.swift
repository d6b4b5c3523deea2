/// What happens to a job, as QMP tells it.
package enum JobEvent: Sendable, Equatable {
  /// What became of an error. The raw values are those of QMP.
  package enum Action: String, Sendable {
    /// It ends the job.
    case report
    /// It was passed over.
    case ignore
    /// It holds the job.
    case stop
  }

  /// The numbers with which a job ends.
  package struct Result: Sendable, Equatable {
    /// The job's id.
    package var id: String
    /// All that there was to look at, in bytes.
    package var length: UInt64
    /// What was looked at.
    package var offset: UInt64
    /// The limit in bytes a second, 0 for none.
    package var speed: UInt64
    /// Why it failed.
    package var error: String?

    init(_ status: JobStatus) {
      id = status.id
      length = status.length
      offset = status.offset
      speed = status.speed
      error = status.error
    }
  }

  /// The job has come to a stage.
  case stage(JobStage, id: String)
  /// The job will write its header when it is told to.
  case pending(id: String)
  /// The job met an error.
  case error(id: String, Action)
  /// The job did what it was asked to, or failed.
  case completed(Result)
  /// The job was cancelled.
  case cancelled(Result)
}
