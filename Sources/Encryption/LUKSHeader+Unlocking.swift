internal import HostSystem

// From a passphrase to the cipher of the data:
//
//     passphrase --PBKDF2--> slot key --decrypts--> key material --merge--> master key
//     master key --PBKDF2--> digest, which the header has to have
//
// The material is the master key split into 4000 stripes that all have to be there: nothing of it can be
// read from a disk that kept a few sectors of a slot that was wiped. Each stripe but the last is
// random; merging is, from the first on, "diffuse what there is, then xor the next one".

extension LUKSHeader {
  /// Opens a key slot with a passphrase; nil if the slot is another passphrase's.
  ///
  /// `material` is the slot's key material as it is on disk; it is decrypted here, and wiped.
  package func open(
    _ slot: KeySlot, material: inout [UInt8], with secret: SecretBytes
  ) throws(EncryptionError) -> SectorCipher? {
    defer { Crypto.wipe(&material) }
    precondition(material.count == materialByteCount, "key material of another length")
    let (hash, count) = (hash, keyByteCount)
    let slotKey = secret.withBytes { secret in
      Crypto.derive(
        from: secret, salt: slot.salt, iterations: slot.iterations, hash: hash, byteCount: count)
    }
    // A passphrase whose key is unfit for the cipher never made this slot.
    guard let slotCipher = SectorCipher(cipher, key: slotKey) else { return nil }
    // The material's sectors are counted from its own start.
    var bytes = material.mutableRawSpan
    slotCipher.decrypt(&bytes, firstSector: 0)
    let key = merge(material)
    let digest = key.withBytes { key in
      Crypto.derive(
        from: key, salt: digestSalt, iterations: digestIterations, hash: hash,
        byteCount: keyDigest.count
      ).withBytes { $0.copied() }
    }
    guard Crypto.isEqual(digest, keyDigest) else { return nil }
    guard let cipher = SectorCipher(cipher, key: key) else { throw .weakKey }
    return cipher
  }

  /// Puts the master key together again.
  func merge(_ material: [UInt8]) -> SecretBytes {
    var key = [UInt8](repeating: 0, count: keyByteCount)
    for stripe in 0..<Self.stripes {
      for index in 0..<keyByteCount { key[index] ^= material[stripe * keyByteCount + index] }
      if stripe < Self.stripes - 1 { diffuse(&key) }
    }
    return SecretBytes(taking: &key)
  }

  /// Replaces each digest's length of the key by the digest of its number and itself.
  private func diffuse(_ key: inout [UInt8]) {
    var start = 0
    var number: UInt32 = 0
    while start < key.count {
      let end = min(start + hash.byteCount, key.count)
      var input = (0..<4).map { UInt8(truncatingIfNeeded: number >> (24 - 8 * $0)) }
      input += key[start..<end]
      let digest = Crypto.digest(input.rawSpan, hash)
      key.replaceSubrange(start..<end, with: digest.prefix(end - start))
      Crypto.wipe(&input)
      start = end
      number += 1
    }
  }
}
