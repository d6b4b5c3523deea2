internal import Chain
internal import HostSystem
internal import Jobs

extension ControlPlane {
  /// The largest size that QEMU gives a disk: whole GiB below 2^63.
  static let largestSize = (Int64.max >> 30) << 30

  /// Makes a device larger, of which the active image is named by its device or its node; clients
  /// find the new size when this returns. A refusal changes nothing but the device's `error` file.
  ///
  /// The order in which reasons are looked for is QEMU's.
  package func resize(device: String?, node: String?, to wanted: Int64) throws(ControlError) {
    let named = device ?? node ?? ""
    let device = try active(device: device, node: node).device
    let name = device.disk.name
    try telling(device) { () throws(ControlError) in
      guard wanted >= 0 else {
        throw ControlError(
          kind: .invalid, sentence: "\(name): a size is not negative", rule: .negativeSize)
      }
      var refusal: ControlError?
      do throws(JobError) {
        try device.jobs.whileIdle { () throws(ChainError) in
          refusal = self.refusal(of: wanted, device)
          if refusal != nil || UInt64(wanted) == device.disk.virtualSize { return }
          try device.disk.grow(to: UInt64(wanted))
          device.size?.tell()
        }
      } catch { throw self.refusal(error, named: named) }
      if let refusal { throw refusal }
    }
  }

  private func refusal(of wanted: Int64, _ device: Device) -> ControlError? {
    let name = device.disk.name
    let size = device.disk.virtualSize
    if wanted > Self.largestSize {
      return ControlError(
        kind: .tooLarge, sentence: "\(name): no disk is so large",
        rule: .sizeTooLarge(wanted, limit: Self.largestSize))
    }
    if device.disk.isReadOnly {
      return ControlError(
        kind: .readOnly, sentence: "\(name): the device is read-only", rule: .readOnlyImage)
    }
    if !wanted.isMultiple(of: 512) {
      return ControlError(
        kind: .invalid, sentence: "\(name): \(wanted) bytes are not whole sectors of 512",
        rule: .unevenSize)
    }
    if UInt64(wanted) == size { return nil }
    if UInt64(wanted) < size {
      return ControlError(
        kind: .notPermitted, sentence: "\(name): a disk never shrinks, and has \(size) bytes")
    }
    if !device.disk.configuration.isGrowable {
      return ControlError(
        kind: .notPermitted,
        sentence: "\(name): the size is fixed; mount with -o growable to let it grow")
    }
    do { try device.size?.checkChange() } catch { return error }
    return nil
  }
}
