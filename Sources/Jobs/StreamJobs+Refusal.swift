internal import Chain
internal import HostSystem

extension StreamJobs {
  /// Tells of a job that was refused when it was there already; throws if it would not have come to be.
  package func tellRefused(id: String?) throws(JobError) {
    try reserve()
    defer { state.withLock { $0.isReserved = false } }
    let id = id ?? disk.name
    guard id == disk.name || JobIDs.isWellFormed(id) else { throw .badID(id, device: disk.name) }
    guard ids.claim(id) else { throw .idInUse(id, device: disk.name) }
    for stage in [JobStage.created, .null] { events?.note(.stage(stage, id: id)) }
    ids.release(id)
    events?.announce()
  }
}
