// What encrypts a sector, as a LUKS header spells it: the cipher and the mode, as in
//
//     aes  xts-plain64              a tweak of the sector's number; the key is two AES keys
//     aes  cbc-plain64              the start value is the sector's number, 64 bits, little-endian
//     aes  cbc-plain                the same with the number's low 32 bits
//     aes  cbc-essiv:sha256         the sector's number, encrypted with the hash of the key
//
// The length of the key decides which AES it is.

/// A cipher with the length of its key and the way in which blocks follow each other.
package enum CipherAlgorithm: Sendable, Equatable {
  case aes128XTS, aes256XTS
  case aes128CBC, aes192CBC, aes256CBC
  case aes256ECB

  /// The length of its key; of XTS, of both.
  var keyByteCount: Int {
    switch self {
    case .aes128CBC: 16
    case .aes192CBC: 24
    case .aes128XTS, .aes256CBC, .aes256ECB: 32
    case .aes256XTS: 64
    }
  }
}

/// How data is encrypted: which cipher, and what each sector begins with.
package struct CipherSpecification: Sendable, Equatable {
  /// What a sector's start value is made of.
  package enum StartValue: Sendable, Equatable {
    /// The low 32 bits of its number.
    case plain
    /// Its number.
    case plain64
    /// Its number, encrypted with the SHA-256 of the key.
    case essivSHA256
  }

  /// The cipher.
  package var algorithm: CipherAlgorithm
  /// What a sector begins with.
  package var startValue: StartValue

  /// Puts the parts together.
  package init(_ algorithm: CipherAlgorithm, _ startValue: StartValue) {
    self.algorithm = algorithm
    self.startValue = startValue
  }

  /// Reads the two fields of a header and checks that the key has a length for them.
  init(cipher: String, mode: String, keyByteCount: Int) throws(EncryptionError) {
    guard cipher == "aes" else { throw .unsupported(field: "cipher", name: cipher) }
    let parts = mode.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
    let startValue: StartValue? =
      switch parts.last {
      case "plain": .plain
      case "plain64": .plain64
      case "essiv:sha256": .essivSHA256
      default: nil
      }
    guard parts.count == 2, let startValue else {
      throw .unsupported(field: "cipher mode", name: mode)
    }
    switch (parts[0], keyByteCount) {
    case ("xts", 32): self.init(.aes128XTS, startValue)
    case ("xts", 64): self.init(.aes256XTS, startValue)
    case ("cbc", 16): self.init(.aes128CBC, startValue)
    case ("cbc", 24): self.init(.aes192CBC, startValue)
    case ("cbc", 32): self.init(.aes256CBC, startValue)
    case ("xts", _), ("cbc", _):
      throw .unsupported(field: "cipher", name: "aes \(mode) with a key of \(keyByteCount) bytes")
    default: throw .unsupported(field: "cipher mode", name: mode)
    }
  }

  /// The cipher as QEMU calls it, such as `aes-256`.
  package var cipherName: String {
    switch algorithm {
    case .aes128XTS, .aes128CBC: "aes-128"
    case .aes192CBC: "aes-192"
    case .aes256XTS, .aes256CBC, .aes256ECB: "aes-256"
    }
  }

  /// The mode as QEMU calls it, such as `xts`.
  package var modeName: String {
    switch algorithm {
    case .aes128XTS, .aes256XTS: "xts"
    case .aes128CBC, .aes192CBC, .aes256CBC: "cbc"
    case .aes256ECB: "ecb"
    }
  }

  /// The start value as QEMU calls it, such as `plain64`.
  package var startValueName: String {
    switch startValue {
    case .plain: "plain"
    case .plain64: "plain64"
    case .essivSHA256: "essiv"
    }
  }
}
