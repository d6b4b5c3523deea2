internal import Chain
internal import Jobs

/// A rule that refused a command.
///
/// Control files tell it in the sentence of the ``ControlError``; QMP has QEMU's words for it, which
/// scripts compare.
package enum ControlRule: Sendable, Equatable {
  /// There is no device and no node of these names; one that was not given is empty.
  case noDevice(String, node: String)
  /// No layer below the active image goes by this name.
  case noSuchLayer(String)
  /// The node is no layer below the active image of the device.
  case notBelow(node: String, device: String)
  /// The node is no layer of the device.
  case notInChain(node: String, device: String)
  /// Two arguments exclude each other.
  case exclusive(String, String)
  /// The whole chain goes, so that a string for the header names nothing.
  case backingFileWithoutBase
  /// No job may have this id.
  case badJobID(String)
  /// Another job has the id.
  case jobIDInUse(String)
  /// The device, or the layer that the node of this name is, has a job.
  case busy(device: String)
  /// The device is read-only.
  case readOnly(device: String)
  /// A speed is below zero.
  case negativeSpeed
  /// No job has this id.
  case noJob(String)
  /// A job does not take the verb in the state that it is in.
  case verb(String, job: String, state: String)
  /// The job is held already.
  case alreadyPaused
  /// The job is not held.
  case notPaused
  /// The job is held, and only a forced cancel ends it then.
  case cancelWhilePaused(String)
  /// No node may have this name.
  case badNodeName(String)
  /// A node or a device has the name.
  case nodeNameInUse(String)
  /// Who names a node instead of a device has to name the new one too.
  case nodeNameMissing
  /// A transaction holds an action that ends it.
  case aborted
  /// A size is below zero.
  case negativeSize
  /// A size is larger than any disk.
  case sizeTooLarge(Int64, limit: Int64)
  /// A size is not whole sectors.
  case unevenSize
  /// The size of an image cannot change that is read-only.
  case readOnlyImage
  /// The file of an overlay could not be made, or opened, for a reason of the system's.
  case noOverlay(SnapshotOrder.Mode, path: String, reason: String)
  /// No overlay can be made in this format.
  case badFormat(String)

  init?(_ error: JobError) {
    switch error {
    case .busy(let device): self = .busy(device: device)
    case .badID(let id, _): self = .badJobID(id)
    case .idInUse(let id, _): self = .jobIDInUse(id)
    case .readOnly(let device): self = .readOnly(device: device)
    case .backingFileWithoutBase: self = .backingFileWithoutBase
    case .chain(.layerReadOnly, let device): self = .readOnly(device: device)
    case .layerBusy, .tooMany, .noJob, .undismissed, .notPending, .pending, .notConcluded,
      .noneConcluded, .closing, .failed, .noSpace, .chain, .record, .thread:
      return nil
    }
  }
}
