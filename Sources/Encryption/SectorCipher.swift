internal import HostSystem

/// Encrypts and decrypts runs of sectors in place; any number of threads at once.
///
/// A sector is 512 bytes whatever the clusters are, and its number goes into what it becomes, so the
/// same bytes look different in each place.
package final class SectorCipher: Sendable {
  /// The bytes of a sector.
  package static let sectorSize = 512

  private let specification: CipherSpecification
  private let encryption: CipherContext
  private let decryption: CipherContext
  /// Makes start values from sector numbers, where they are not plain.
  private let startValues: CipherContext?

  /// A cipher with its key, whose length has to be the cipher's.
  ///
  /// Nil if the key is so weak that the cipher refuses it: the two halves of an XTS key are the same.
  package init?(_ specification: CipherSpecification, key: SecretBytes) {
    let algorithm = specification.algorithm
    guard let encryption = key.withBytes({ CipherContext(algorithm, key: $0, .encrypt) }),
      let decryption = key.withBytes({ CipherContext(algorithm, key: $0, .decrypt) })
    else { return nil }
    if specification.startValue == .essivSHA256 {
      var hashed = key.withBytes { Crypto.digest($0, .sha256) }
      let salt = SecretBytes(taking: &hashed)
      guard let context = salt.withBytes({ CipherContext(.aes256ECB, key: $0, .encrypt) }) else {
        return nil
      }
      startValues = consume context
    } else {
      startValues = nil
    }
    self.specification = specification
    self.encryption = encryption
    self.decryption = decryption
  }

  /// Encrypts whole sectors, the first of which has this number.
  package func encrypt(_ bytes: inout MutableRawSpan, firstSector: UInt64) {
    apply(encryption.copy(), to: &bytes, firstSector)
  }

  /// Decrypts whole sectors, the first of which has this number.
  package func decrypt(_ bytes: inout MutableRawSpan, firstSector: UInt64) {
    apply(decryption.copy(), to: &bytes, firstSector)
  }

  private func apply(
    _ context: consuming CipherContext, to bytes: inout MutableRawSpan, _ firstSector: UInt64
  ) {
    precondition(bytes.byteCount.isMultiple(of: Self.sectorSize), "a cipher takes whole sectors")
    var sector = firstSector
    var position = 0
    while position < bytes.byteCount {
      var part = bytes.slice(position..<position + Self.sectorSize)
      context.apply(startValue: startValue(of: sector), to: &part)
      position += Self.sectorSize
      sector += 1
    }
  }

  private func startValue(of sector: UInt64) -> InlineArray<16, UInt8> {
    let number = specification.startValue == .plain ? sector & UInt64(UInt32.max) : sector
    var value = InlineArray<16, UInt8>(repeating: 0)
    for index in 0..<8 { value[index] = UInt8(truncatingIfNeeded: number >> (8 * UInt64(index))) }
    switch startValues {
    case .none: break
    case .some(let context):
      var copy = context.copy()
      var elements = value.mutableSpan
      // The value outlives the call; every bit pattern is a byte.
      var bytes = unsafe elements.mutableBytes
      copy.apply(startValue: InlineArray(repeating: 0), to: &bytes)
    }
    return value
  }
}
