package import BlockIO
package import Encryption
internal import HostSystem
internal import Qcow2Format

extension Qcow2Image {
  /// Reads the LUKS header of an encrypted image.
  static func encryptionHeader(
    of storage: any BlockStorage
  ) throws(ImageError) -> (header: LUKSHeader, offset: UInt64) {
    let image = try ImageHeader.read(from: storage)
    guard let area = image.encryptionHeader else {
      throw .unsupported(path: storage.path, feature: "a secret for an image without encryption")
    }
    try image.checkTables(in: storage)
    let bytes = try storage.readTable(
      min(LUKSHeader.byteCount, Int(area.byteCount)), at: area.offset)
    do {
      let header = try LUKSHeader(parsing: bytes, areaByteCount: area.byteCount)
      return (header, area.offset)
    } catch { throw .encryption(path: storage.path, error) }
  }

  /// Opens an encrypted image with its secret, and gives the cipher of its guest data.
  ///
  /// That takes as long as whoever made the image wanted a guess to take, for each key slot.
  package static func unlock(
    _ storage: any BlockStorage, with secret: SecretBytes
  ) throws(ImageError) -> SectorCipher {
    let (header, offset) = try encryptionHeader(of: storage)
    let slots = header.slots.filter(\.isActive)
    if slots.isEmpty { throw .encryption(path: storage.path, .noActiveSlot) }
    for slot in slots {
      var material = try storage.readTable(
        header.materialByteCount, at: offset + slot.materialOffset)
      do {
        if let cipher = try header.open(slot, material: &material, with: secret) { return cipher }
      } catch { throw .encryption(path: storage.path, error) }
    }
    throw .encryption(path: storage.path, .wrongSecret)
  }
}
