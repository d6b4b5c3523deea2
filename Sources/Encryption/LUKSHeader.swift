// The header of LUKS version 1, as in its "On-Disk Format Specification". All numbers are big-endian.
//
//     0  magic      6 version      8 cipher name    40 cipher mode    72 hash
//   104  payload    108 key length 112 digest of the key             132 its salt
//   164  its iterations            168 UUID         208 eight key slots of 48 bytes
//
//     a slot:  0 state   4 iterations   8 salt   40 key material, in sectors   44 stripes
//
// Everything here is hostile input. What costs time or memory has a bound: a slot's material is
// at most 64 bytes times 4000 stripes, and deriving a key takes at most `maximumIterations`.

/// A LUKS header, every field of which is checked.
package struct LUKSHeader: Sendable, Equatable {
  /// A place for the master key, encrypted with one passphrase.
  package struct KeySlot: Sendable, Equatable {
    /// A passphrase is kept in it.
    package var isActive: Bool
    /// Rounds of PBKDF2.
    package var iterations: Int
    /// The salt of the passphrase.
    package var salt: [UInt8]
    /// Where its key material begins, in bytes from the header.
    package var materialOffset: UInt64
    /// Into how many parts the master key is split.
    package var stripes: Int
  }

  /// How data and key material are encrypted.
  package var cipher: CipherSpecification
  /// The hash of PBKDF2 and of the splitting of keys.
  package var hash: HashAlgorithm
  /// The length of the master key.
  package var keyByteCount: Int
  /// What tells a right master key from a wrong one.
  package var keyDigest: [UInt8]
  /// The salt of the digest.
  package var digestSalt: [UInt8]
  /// Rounds of PBKDF2 for the digest.
  package var digestIterations: Int
  /// Where the data would begin in a disk that is LUKS as a whole, in bytes; the header ends before.
  package var payloadOffset: UInt64
  /// The name of this encryption.
  package var uuid: String
  /// All eight, used or not.
  package var slots: [KeySlot]

  /// The length of the header without key material.
  package static let byteCount = 592
  /// The parts that a key is split into; there are no others.
  package static let stripes = 4000
  /// More rounds of PBKDF2 than this are refused: they would take minutes for each slot.
  package static let maximumIterations = 100_000_000
  /// The sectors that the header itself takes, rounded to what key slots are aligned to.
  static let headerSectors: UInt64 = 2

  /// The bytes of a slot's key material, in whole sectors.
  package var materialByteCount: Int { (keyByteCount * Self.stripes + 511) / 512 * 512 }
}

// MARK: - Parsing

extension LUKSHeader {
  /// Reads a header that has `areaByteCount` bytes for itself and its key material.
  package init(parsing bytes: [UInt8], areaByteCount: UInt64) throws(EncryptionError) {
    guard bytes.count >= Self.byteCount, bytes.starts(with: [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe])
    else { throw .notLUKS }
    let version = Int(Self.number(bytes, at: 6, byteCount: 2))
    guard version == 1 else { throw .unsupportedVersion(version) }
    let hashName = Self.text(bytes, at: 72, byteCount: 32)
    guard let hash = HashAlgorithm(rawValue: hashName) else {
      throw .unsupported(field: "hash", name: hashName)
    }
    self.hash = hash
    let keyLength = Self.number(bytes, at: 108, byteCount: 4)
    try Self.check("key length", keyLength, in: 16...64)
    keyByteCount = Int(keyLength)
    cipher = try CipherSpecification(
      cipher: Self.text(bytes, at: 8, byteCount: 32),
      mode: Self.text(bytes, at: 40, byteCount: 32), keyByteCount: keyByteCount)
    keyDigest = Array(bytes[112..<132])
    digestSalt = Array(bytes[132..<164])
    digestIterations = try Self.iterations(bytes, at: 164, "key digest iterations")
    uuid = Self.text(bytes, at: 168, byteCount: 40)
    let payload = Self.number(bytes, at: 104, byteCount: 4)
    // QEMU writes the end of the last key slot here.
    try Self.check("payload offset", payload, in: 8...max(8, areaByteCount / 512))
    payloadOffset = payload * 512
    slots = []
    for index in 0..<8 {
      slots.append(
        try Self.slot(
          index, bytes, at: 208 + index * 48, keyByteCount: keyByteCount, endSector: payload))
    }
  }

  private static func slot(
    _ index: Int, _ bytes: [UInt8], at offset: Int, keyByteCount: Int, endSector: UInt64
  ) throws(EncryptionError) -> KeySlot {
    let state = UInt32(number(bytes, at: offset, byteCount: 4))
    let start = number(bytes, at: offset + 40, byteCount: 4)
    let stripes = number(bytes, at: offset + 44, byteCount: 4)
    var slot = KeySlot(
      isActive: false, iterations: 0, salt: Array(bytes[offset + 8..<offset + 40]),
      materialOffset: start * 512, stripes: Int(stripes))
    switch state {
    case 0x0000_dead: return slot
    case 0x00ac_71f3: slot.isActive = true
    default: throw .slotState(slot: index, state: state)
    }
    slot.iterations = try iterations(bytes, at: offset + 4, "key slot \(index) iterations")
    try check(
      "key slot \(index) stripes", stripes, in: UInt64(Self.stripes)...UInt64(Self.stripes))
    let sectors = UInt64((keyByteCount * Self.stripes + 511) / 512)
    guard endSector >= headerSectors + sectors else {
      throw .fieldOutOfRange(
        field: "payload offset", value: endSector, allowed: headerSectors + sectors...UInt64.max)
    }
    try check("key slot \(index) offset", start, in: headerSectors...endSector - sectors)
    return slot
  }

  private static func iterations(
    _ bytes: [UInt8], at offset: Int, _ field: String
  ) throws(EncryptionError) -> Int {
    let value = number(bytes, at: offset, byteCount: 4)
    try check(field, value, in: 1...UInt64(maximumIterations))
    return Int(value)
  }

  private static func check(
    _ field: String, _ value: UInt64, in allowed: ClosedRange<UInt64>
  ) throws(EncryptionError) {
    guard allowed.contains(value) else {
      throw .fieldOutOfRange(field: field, value: value, allowed: allowed)
    }
  }

  private static func number(_ bytes: [UInt8], at offset: Int, byteCount: Int) -> UInt64 {
    bytes[offset..<offset + byteCount].reduce(0) { $0 << 8 | UInt64($1) }
  }

  /// What stands before the first NUL; bytes that no name of ours has show as such.
  private static func text(_ bytes: [UInt8], at offset: Int, byteCount: Int) -> String {
    String(decoding: bytes[offset..<offset + byteCount].prefix { $0 != 0 }, as: UTF8.self)
  }
}
