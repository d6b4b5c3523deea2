/// One header extension as it stands on disk: type and data; padding to 8 bytes is not kept.
///
/// See "Header extensions" in qcow2.rst. Extensions that this module does not know are carried
/// along unchanged: they may be somebody's only copy of what they hold.
package struct HeaderExtension: Sendable, Equatable {
  /// The type of the extension.
  package var type: UInt32
  /// The data, without padding.
  package var data: [UInt8]

  /// An extension of `type` with `data`.
  package init(type: UInt32, data: [UInt8]) {
    self.type = type
    self.data = data
  }

  /// Ends the extension area.
  package static let endType: UInt32 = 0
  /// The backing file's format name.
  package static let backingFormatType: UInt32 = 0xe279_2aca
  /// Names of feature bits, for messages only.
  package static let featureNamesType: UInt32 = 0x6803_f857
  /// Where the persistent bitmaps are.
  package static let bitmapsType: UInt32 = 0x2385_2875
  /// Where the LUKS header is.
  package static let encryptionType: UInt32 = 0x0537_be77
  /// The name of the external data file.
  package static let dataFileType: UInt32 = 0x4441_5441

  /// The bytes the extension takes in the header, with its type, length and padding.
  var encodedByteCount: Int { 8 + (data.count + 7) / 8 * 8 }

  /// Writes the extension at `offset`, where `encodedByteCount` bytes are zero.
  func encode(into bytes: inout [UInt8], at offset: Int) {
    BigEndian.store(type, in: &bytes, at: offset)
    BigEndian.store(UInt32(data.count), in: &bytes, at: offset + 4)
    bytes.replaceSubrange(offset + 8..<offset + 8 + data.count, with: data)
  }
}

/// A row of the feature name table: what a feature bit is called.
package struct FeatureName: Sendable, Equatable {
  /// Which of the three feature fields a bit belongs to.
  package enum Kind: UInt8, Sendable {
    /// A reader that does not know the bit must refuse the image.
    case incompatible = 0
    /// A reader may ignore the bit.
    case compatible = 1
    /// A writer that does not know the bit clears it.
    case autoclear = 2
  }

  /// The field.
  package var kind: Kind
  /// The bit in the field, 0 to 63.
  package var bit: Int
  /// The name, at most 46 bytes of UTF-8.
  package var name: String

  private static let rowByteCount = 48

  /// The rows of a feature name table; rows of an unknown kind and a cut last row are left out.
  static func rows(of table: [UInt8]) -> [FeatureName] {
    stride(from: 0, to: table.count / rowByteCount * rowByteCount, by: rowByteCount).compactMap {
      guard let kind = Kind(rawValue: table[$0]) else { return nil }
      let name = table[$0 + 2..<$0 + rowByteCount].prefix { $0 != 0 }
      return FeatureName(
        kind: kind, bit: Int(table[$0 + 1]), name: String(decoding: name, as: UTF8.self))
    }
  }

  /// The table that QEMU writes into every version 3 image with clusters of more than 4 KiB.
  static let standardTable: [UInt8] = [
    FeatureName(kind: .incompatible, bit: 0, name: "dirty bit"),
    FeatureName(kind: .incompatible, bit: 1, name: "corrupt bit"),
    FeatureName(kind: .incompatible, bit: 2, name: "external data file"),
    FeatureName(kind: .incompatible, bit: 3, name: "compression type"),
    FeatureName(kind: .incompatible, bit: 4, name: "extended L2 entries"),
    FeatureName(kind: .compatible, bit: 0, name: "lazy refcounts"),
    FeatureName(kind: .autoclear, bit: 0, name: "bitmaps"),
    FeatureName(kind: .autoclear, bit: 1, name: "raw external data"),
  ].flatMap { row in
    let name = Array(row.name.utf8.prefix(rowByteCount - 2))
    let padding = [UInt8](repeating: 0, count: rowByteCount - 2 - name.count)
    return [row.kind.rawValue, UInt8(row.bit)] + name + padding
  }
}
