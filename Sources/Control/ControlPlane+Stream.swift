internal import HostSystem
internal import Jobs

extension ControlPlane {
  /// Starts a stream as QMP's block-stream does, with QEMU's events also where it is refused.
  ///
  /// QEMU looks at the speed last, when the job is there already: so whoever listens hears of a job
  /// that was created and is gone, and what else is wrong is told first.
  package func blockStream(_ order: StreamOrder) throws(ControlError) {
    do { try stream(order) } catch {
      guard error.rule == .negativeSpeed, let place = try find(order.device) else { throw error }
      let id = order.jobID ?? (place.isDevice ? nil : "")
      try telling(place.device) { () throws(ControlError) in
        do throws(JobError) { try place.device.jobs.tellRefused(id: id) } catch let other {
          throw ControlError(other)
        }
        throw error
      }
    }
  }
}
