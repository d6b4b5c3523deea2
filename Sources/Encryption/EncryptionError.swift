package import HostSystem

/// What is wrong with a LUKS header, or with the secret for it.
package enum EncryptionError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The bytes do not begin as a LUKS header does, or are too few for one.
  case notLUKS
  /// It is a LUKS header of another version.
  case unsupportedVersion(Int)
  /// The header asks for a cipher, a mode or a hash that is not there.
  case unsupported(field: String, name: String)
  /// A number lies outside of what its field may hold.
  case fieldOutOfRange(field: String, value: UInt64, allowed: ClosedRange<UInt64>)
  /// A key slot is neither in use nor free.
  case slotState(slot: Int, state: UInt32)
  /// No key slot is in use, so no secret opens the image.
  case noActiveSlot
  /// The secret opens none of the key slots.
  case wrongSecret
  /// The secret is not UTF-8 text without NUL.
  case secretNotText
  /// The key is one that its cipher refuses.
  case weakKey

  /// The meaning of the error, for callers that decide by it.
  package var kind: FailureKind {
    switch self {
    case .notLUKS, .fieldOutOfRange, .slotState, .noActiveSlot, .weakKey: .corrupt
    case .unsupportedVersion, .unsupported: .unsupported
    case .wrongSecret: .accessDenied
    case .secretNotText: .invalid
    }
  }

  /// A sentence that names the field and, where there is one, the way out.
  package var description: String {
    switch self {
    case .notLUKS: "the LUKS header does not begin with LUKS's magic"
    case .unsupportedVersion(let version):
      "LUKS version \(version) is not supported, only 1 is; qemu-img convert makes such an image"
    case .unsupported(let field, let name):
      "the LUKS \(field) \(name) is not supported; qemu-img convert makes an image without it"
    case .fieldOutOfRange(let field, let value, let allowed):
      "the LUKS header's \(field) is \(value), must be \(allowed.lowerBound) to"
        + " \(allowed.upperBound)"
    case .slotState(let slot, let state):
      "LUKS key slot \(slot) is neither in use nor free: 0x\(String(state, radix: 16))"
    case .noActiveSlot: "the LUKS header has no key slot in use, so no secret opens the image"
    case .wrongSecret:
      "the secret opens none of the image's key slots; all bytes of its file count, also a newline"
        + " at its end"
    case .secretNotText: "the secret is not UTF-8 text, which QEMU wants it to be"
    case .weakKey: "the key in the LUKS header is one that its cipher refuses"
    }
  }
}
