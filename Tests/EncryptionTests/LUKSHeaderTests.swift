import HostSystem
import TestSupport
import Testing

@testable import Encryption

/// A LUKS header with one passphrase, made here, so that each field can be bent.
struct LUKSFixture {
  var bytes: [UInt8]
  var material: [UInt8] = []
  var key: [UInt8]

  init(
    passphrase: String, slot: Int = 1, hash: HashAlgorithm = .sha256, mode: String = "xts-plain64",
    keyByteCount: Int = 64
  ) throws {
    var random = SeededGenerator(seed: 4)
    key = random.bytes(keyByteCount)
    bytes = [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe, 0, 1] + [UInt8](repeating: 0, count: 584)
    put(Array("aes".utf8), at: 8)
    put(Array(mode.utf8), at: 40)
    put(Array(hash.rawValue.utf8), at: 72)
    put(4040, at: 104)
    put(UInt32(keyByteCount), at: 108)
    let salt = random.bytes(32)
    put(salt, at: 132)
    put(9, at: 164)
    put(
      Crypto.derive(
        from: key.rawSpan, salt: salt, iterations: 9, hash: hash, byteCount: 20
      ).withBytes { $0.copied() }, at: 112)
    put(Array("11111111-2222-3333-4444-555555555555".utf8), at: 168)
    for index in 0..<8 {
      put(0xdead, at: 208 + index * 48)
      put(UInt32(8 + index * 504), at: 248 + index * 48)
      put(4000, at: 252 + index * 48)
    }
    let slotSalt = random.bytes(32)
    put(0xac71f3, at: 208 + slot * 48)
    put(11, at: 212 + slot * 48)
    put(slotSalt, at: 216 + slot * 48)
    let header = try LUKSHeader(parsing: bytes, areaByteCount: 4040 * 512)
    material = split(header, &random)
    let slotKey = Crypto.derive(
      from: Array(passphrase.utf8).rawSpan, salt: slotSalt, iterations: 11, hash: hash,
      byteCount: keyByteCount)
    let cipher = try #require(SectorCipher(header.cipher, key: slotKey))
    var span = material.mutableRawSpan
    cipher.encrypt(&span, firstSector: 0)
  }

  /// The key as stripes whose merging gives it back: the last one is what is missing.
  private func split(_ header: LUKSHeader, _ random: inout SeededGenerator) -> [UInt8] {
    let last = (LUKSHeader.stripes - 1) * key.count
    var stripes = random.bytes(header.materialByteCount)
    for index in 0..<key.count { stripes[last + index] = 0 }
    let diffused = header.merge(stripes).withBytes { $0.copied() }
    for index in 0..<key.count { stripes[last + index] = diffused[index] ^ key[index] }
    return stripes
  }

  mutating func put(_ new: [UInt8], at offset: Int) {
    bytes.replaceSubrange(offset..<offset + new.count, with: new)
  }

  mutating func put(_ number: UInt32, at offset: Int) {
    put((0..<4).map { UInt8(truncatingIfNeeded: number >> (24 - 8 * $0)) }, at: offset)
  }

  func parse() throws(EncryptionError) -> LUKSHeader {
    try LUKSHeader(parsing: bytes, areaByteCount: 4040 * 512)
  }
}

@Suite struct LUKSHeaderTests {
  struct Form: Sendable {
    var hash: HashAlgorithm
    var mode: String
    var keyByteCount: Int
  }

  @Test(
    "a slot opens with its passphrase only, whatever hash and cipher",
    arguments: [
      Form(hash: .sha1, mode: "cbc-plain64", keyByteCount: 16),
      Form(hash: .sha224, mode: "xts-plain", keyByteCount: 64),
      Form(hash: .sha256, mode: "cbc-essiv:sha256", keyByteCount: 32),
      Form(hash: .sha384, mode: "cbc-plain64", keyByteCount: 24),
      Form(hash: .sha512, mode: "xts-plain64", keyByteCount: 32),
    ])
  func opens(form: Form) throws {
    let fixture = try LUKSFixture(
      passphrase: "right", hash: form.hash, mode: form.mode, keyByteCount: form.keyByteCount)
    let header = try fixture.parse()
    let slot = try #require(header.slots.first { $0.isActive })
    for (word, isRight) in [("right", true), ("right\n", false), ("", false)] {
      var bytes = Array(word.utf8)
      let secret = try SecretBytes(passphrase: &bytes)
      var material = fixture.material
      let opened = try header.open(slot, material: &material, with: secret)
      #expect((opened != nil) == isRight, "\(word)")
      #expect(material.allSatisfy { $0 == 0 })
      guard let opened else { continue }
      let direct = try cipher(header.cipher.algorithm, header.cipher.startValue, fixture.key)
      var one = [UInt8](repeating: 3, count: 512)
      var other = one
      var span = one.mutableRawSpan
      opened.encrypt(&span, firstSector: 8)
      span = other.mutableRawSpan
      direct.encrypt(&span, firstSector: 8)
      #expect(one == other)
    }
  }

  @Test("the fields are read where they are")
  func fields() throws {
    let header = try LUKSFixture(passphrase: "x", slot: 7).parse()
    #expect(header.uuid == "11111111-2222-3333-4444-555555555555")
    #expect(header.cipher == CipherSpecification(.aes256XTS, .plain64))
    #expect(header.slots.map(\.isActive) == [Bool](repeating: false, count: 7) + [true])
    #expect(header.slots[7].materialOffset == (8 + 7 * 504) * 512)
    #expect(header.slots[7].iterations == 11 && header.digestIterations == 9)
    #expect(header.payloadOffset == 4040 * 512)
  }

  struct Bend: CustomTestStringConvertible, Sendable {
    var field: String
    var offset: Int
    var value: UInt32
    var isTaken = false
    var testDescription: String { "\(field) \(value)" }
  }

  /// Slot 1, which is in use, begins at 256.
  static let bends: [Bend] = [
    Bend(field: "key digest iterations", offset: 164, value: 0),
    Bend(field: "key digest iterations", offset: 164, value: 1, isTaken: true),
    Bend(field: "key digest iterations", offset: 164, value: 100_000_000, isTaken: true),
    Bend(field: "key digest iterations", offset: 164, value: 100_000_001),
    Bend(field: "key slot 1 iterations", offset: 260, value: 0),
    Bend(field: "key slot 1 iterations", offset: 260, value: .max),
    Bend(field: "key slot 1 stripes", offset: 300, value: 3999),
    Bend(field: "key slot 1 stripes", offset: 300, value: 4001),
    Bend(field: "key slot 1 offset", offset: 296, value: 1),
    Bend(field: "key slot 1 offset", offset: 296, value: 2, isTaken: true),
    Bend(field: "key slot 1 offset", offset: 296, value: 3540, isTaken: true),
    Bend(field: "key slot 1 offset", offset: 296, value: 3541),
    Bend(field: "key slot 1 offset", offset: 296, value: .max),
    Bend(field: "payload offset", offset: 104, value: 7),
    Bend(field: "payload offset", offset: 104, value: 501),
    Bend(field: "payload offset", offset: 104, value: 4041),
    Bend(field: "key length", offset: 108, value: 0),
    Bend(field: "key length", offset: 108, value: 65),
    Bend(field: "key length", offset: 108, value: .max),
    Bend(field: "key slot 2 stripes", offset: 348, value: 9, isTaken: true),
  ]

  @Test("a number out of its range is refused by its field", arguments: bends)
  func bent(bend: Bend) throws {
    var fixture = try LUKSFixture(passphrase: "x")
    fixture.put(bend.value, at: bend.offset)
    do {
      _ = try fixture.parse()
      #expect(bend.isTaken)
    } catch {
      #expect(!bend.isTaken && error.description.contains(bend.field), "\(error)")
      #expect(error.kind == .corrupt)
    }
  }

  @Test("other versions, ciphers, modes and hashes are refused by name")
  func otherForms() throws {
    let good = try LUKSFixture(passphrase: "x")
    for (offset, name) in [
      (8, "twofish"), (40, "ecb"), (40, "xts-benbi"), (40, "cbc-essiv:sha1"), (72, "whirlpool"),
    ] {
      var fixture = good
      fixture.put([UInt8](repeating: 0, count: 32), at: offset)
      fixture.put(Array(name.utf8), at: offset)
      do {
        _ = try fixture.parse()
        Issue.record("\(name) was taken")
      } catch {
        #expect(error.kind == .unsupported && error.description.contains(name), "\(error)")
      }
    }
    var fixture = good
    fixture.put([0, 2], at: 6)
    #expect(throws: EncryptionError.unsupportedVersion(2)) { try fixture.parse() }
    fixture.put([0], at: 0)
    #expect(throws: EncryptionError.notLUKS) { try fixture.parse() }
    #expect(throws: EncryptionError.notLUKS) {
      try LUKSHeader(parsing: Array(good.bytes.dropLast()), areaByteCount: 1 << 30)
    }
    fixture = good
    fixture.put(0xdeae, at: 208)
    #expect(throws: EncryptionError.slotState(slot: 0, state: 0xdeae)) { try fixture.parse() }
  }
}
