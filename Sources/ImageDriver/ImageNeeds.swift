package import BlockIO
internal import Qcow2Format

/// What a qcow2 image needs besides its own file before it can be opened.
package struct ImageNeeds: Sendable, Equatable {
  /// A file that has the bytes of the guest.
  package struct DataFile: Sendable, Equatable {
    /// The string in the header, not resolved; nil if the header does not say.
    package var name: String?
  }

  /// The guest data is encrypted with LUKS: a secret.
  package var isEncrypted: Bool
  /// The guest data is not in the image file: the file that has it.
  package var dataFile: DataFile?

  /// Reads the header of an image.
  package init(of storage: any BlockStorage) throws(ImageError) {
    let header = try ImageHeader.read(from: storage)
    isEncrypted = header.encryption == .luks
    dataFile = header.geometry.hasDataFile ? DataFile(name: header.dataFile) : nil
  }
}
