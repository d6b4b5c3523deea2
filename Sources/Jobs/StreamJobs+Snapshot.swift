package import Chain
internal import HostSystem

// A snapshot changes which image is the active one, and that is what a job copies into. So the places of
// all its disks are reserved first, as if a job ran on each; one that has a job already refuses it
// before any file is made.

extension StreamJobs {
  /// Takes a snapshot of the disks of `members`, each at its path, all or nothing. No job runs on any of
  /// them meanwhile, and none can start.
  package static func snapshot(
    _ members: [(jobs: StreamJobs, path: String)], format: String = "qcow2",
    mode: SnapshotMode = .absolutePaths
  ) throws(JobError) {
    try snapshot(each: members.map { ($0.jobs, $0.path, mode) }, format: format) {}
  }

  /// The same, where each overlay may come from elsewhere. No job starts either while `afterwards` is run,
  /// once the snapshot has been taken.
  package static func snapshot(
    each members: [(jobs: StreamJobs, path: String, mode: SnapshotMode)], format: String = "qcow2",
    afterwards: () throws(ChainError) -> Void
  ) throws(JobError) {
    var reserved: [StreamJobs] = []
    defer { for jobs in reserved { jobs.state.withLock { $0.isReserved = false } } }
    for member in members {
      try member.jobs.reserve()
      reserved.append(member.jobs)
    }
    let group = GroupSnapshot(
      each: members.map { ($0.jobs.disk, $0.path, $0.mode) }, format: format)
    do { try group.take() } catch { throw .chain(error.cause, device: error.disk) }
    do { try afterwards() } catch { throw .chain(error, device: members[0].jobs.disk.name) }
  }
}
