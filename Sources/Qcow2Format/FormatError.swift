/// What is wrong with bytes that should be qcow2 metadata, with the evidence as values.
///
/// Names of fields are those of the section "Header" in qemu's docs/interop/qcow2.rst.
package enum FormatError: Error, Equatable, Sendable {
  /// The file does not begin with the magic of qcow2.
  case notQcow2
  /// The version is neither 2 nor 3.
  case unsupportedVersion(UInt32)
  /// The bytes need something chainfs does not know.
  case unsupportedFeature(name: String)
  /// A structure goes on after the bytes that are there.
  case truncated(structure: String, needed: Int, available: Int)
  /// A number lies outside of what its field may hold.
  case fieldOutOfRange(field: String, value: UInt64, allowed: ClosedRange<UInt64>)
  /// An offset or length that must be a multiple is none.
  case fieldMisaligned(field: String, value: UInt64, alignment: UInt64)
  /// The compression type and incompatible feature bit 3 contradict each other.
  case compressionTypeMismatch(type: UInt8, featureBit: Bool)
  /// A header extension is longer than the room before the backing file name or the cluster's end.
  case extensionOverrun(type: UInt32, length: UInt32, available: Int)
  /// The header extension that tells where the LUKS header is contradicts the header.
  case encryptionHeader(reason: String)
  /// A name in the header is not UTF-8 text without NUL.
  case nameNotText(field: String)
  /// The header with its extensions and backing file name does not fit where it must.
  case headerFull(needed: Int, available: Int)
  /// An L1, L2 or refcount table entry no writer may have left.
  case corruptEntry(table: String, entry: UInt64, reason: String)
  /// A compressed cluster does not inflate to one cluster.
  case corruptCompressedCluster(method: CompressionMethod, reason: String)
}

extension FormatError: CustomStringConvertible {
  /// One lower-case sentence that names the field and, where there is one, the way out.
  package var description: String {
    switch self {
    case .notQcow2:
      "not a qcow2 image (the magic is missing); give a raw image as raw:PATH"
    case .unsupportedVersion(let version):
      "qcow2 version \(version) is not supported (only 2 and 3 are)"
    case .unsupportedFeature(let name):
      "unsupported qcow2 feature: \(name); convert the image with qemu-img convert"
    case .truncated(let structure, let needed, let available):
      "\(structure) needs \(needed) bytes, only \(available) are there; the file is cut short"
    case .fieldOutOfRange(let field, let value, let allowed):
      "\(field) is \(value), must be \(allowed.lowerBound) to \(allowed.upperBound)"
    case .fieldMisaligned(let field, let value, let alignment):
      "\(field) is \(value), must be a multiple of \(alignment)"
    case .compressionTypeMismatch(let type, let featureBit):
      "compression type \(type) contradicts incompatible feature bit 3, which is "
        + (featureBit ? "set" : "clear")
    case .extensionOverrun(let type, let length, let available):
      "header extension 0x\(String(type, radix: 16)) is too large: its length is \(length),"
        + " \(available) bytes are left"
    case .encryptionHeader(let reason): "encryption header extension: \(reason)"
    case .nameNotText(let field):
      "\(field) is not UTF-8 text; "
        + (field == "data file name"
          ? "set another with qemu-img amend" : "set another with qemu-img rebase -u")
    case .headerFull(let needed, let available):
      "the header needs \(needed) bytes and has room for \(available);"
        + " use a shorter backing file name"
    case .corruptEntry(let table, let entry, let reason):
      "\(table) entry 0x\(String(entry, radix: 16)) is corrupt: \(reason);"
        + " look at the image with chainfs check"
    case .corruptCompressedCluster(let method, let reason):
      "compressed cluster (\(method)) is corrupt: \(reason)"
    }
  }
}

// MARK: - Checks that several parsers share

/// Throws unless `value` is in `allowed`.
func check(
  _ field: String, _ value: UInt64, in allowed: ClosedRange<UInt64>
) throws(FormatError) {
  guard allowed.contains(value) else {
    throw .fieldOutOfRange(field: field, value: value, allowed: allowed)
  }
}

/// Throws unless `value` is a multiple of `alignment`.
func check(
  _ field: String, _ value: UInt64, multipleOf alignment: UInt64
) throws(FormatError) {
  guard value.isMultiple(of: alignment) else {
    throw .fieldMisaligned(field: field, value: value, alignment: alignment)
  }
}

/// Checks where a table is: aligned and, unless it is empty, not in the header's cluster and with
/// whole clusters that a signed file offset can name.
func checkTable(
  _ field: String, at offset: UInt64, byteCount: Int, clusterSize: Int
) throws(FormatError) {
  let cluster = UInt64(clusterSize)
  try check(field, offset, multipleOf: cluster)
  guard byteCount > 0 else { return }
  try check(field, offset, in: cluster...(UInt64(Int64.max) - UInt64(byteCount) - cluster))
}
