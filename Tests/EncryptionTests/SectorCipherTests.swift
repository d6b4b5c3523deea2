import HostSystem
import TestSupport
import Testing

@testable import Encryption

/// Bytes from hexadecimal digits.
func hex(_ text: String) -> [UInt8] {
  let digits = text.compactMap(\.hexDigitValue)
  return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

func cipher(_ algorithm: CipherAlgorithm, _ start: CipherSpecification.StartValue, _ key: [UInt8])
  throws -> SectorCipher
{
  var key = key
  return try #require(
    SectorCipher(CipherSpecification(algorithm, start), key: SecretBytes(taking: &key)))
}

@Suite struct SectorCipherTests {
  struct Vector: CustomTestStringConvertible, Sendable {
    var name: String
    var key: String
    var sector: UInt64
    var firstBytes: String
    var testDescription: String { name }
  }

  /// Vectors 4, 5 and 10 of IEEE 1619 with data units of 512 bytes, 0 to 255 twice.
  static let xts: [Vector] = [
    Vector(
      name: "4", key: "27182818284590452353602874713526 31415926535897932384626433832795",
      sector: 0,
      firstBytes: "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"
        + "c78cf7f5e543445f8333d8fa7f56000005279fa5d8b5e4ad40e736ddb4d35412"),
    Vector(
      name: "10",
      key: "2718281828459045235360287471352662497757247093699959574966967627"
        + "3141592653589793238462643383279502884197169399375105820974944592",
      sector: 0xff,
      firstBytes: "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
        + "5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd"),
  ]

  @Test("XTS gives what IEEE 1619 says", arguments: xts)
  func knownXTS(vector: Vector) throws {
    let key = hex(vector.key)
    let cipher = try cipher(key.count == 32 ? .aes128XTS : .aes256XTS, .plain64, key)
    let plain = (0..<512).map { UInt8($0 & 255) }
    var bytes = plain
    var span = bytes.mutableRawSpan
    cipher.encrypt(&span, firstSector: vector.sector)
    let known = hex(vector.firstBytes)
    #expect(Array(bytes[..<known.count]) == known)
    span = bytes.mutableRawSpan
    cipher.decrypt(&span, firstSector: vector.sector)
    #expect(bytes == plain)
  }

  static let all: [CipherSpecification] =
    [.plain, .plain64, .essivSHA256].flatMap { start in
      [.aes128XTS, .aes256XTS, .aes128CBC, .aes192CBC, .aes256CBC].map {
        CipherSpecification($0, start)
      }
    }

  @Test("a run of sectors is each of them by its number, both ways", arguments: all)
  func runs(specification: CipherSpecification) throws {
    var random = Seed.generator("runs of sectors")
    let cipher = try cipher(
      specification.algorithm, specification.startValue,
      random.bytes(specification.algorithm.keyByteCount))
    let plain = random.bytes(5 * 512)
    let first = UInt64(1) << 32 - 2
    var together = plain
    var span = together.mutableRawSpan
    cipher.encrypt(&span, firstSector: first)
    var apart: [UInt8] = []
    for sector in 0..<5 {
      var one = Array(plain[sector * 512..<(sector + 1) * 512])
      span = one.mutableRawSpan
      cipher.encrypt(&span, firstSector: first + UInt64(sector))
      apart += one
    }
    #expect(together == apart && together != plain)
    span = together.mutableRawSpan
    cipher.decrypt(&span, firstSector: first)
    #expect(together == plain)
  }

  @Test("plain counts in 32 bits, plain64 in 64")
  func plainWraps() throws {
    let key = (0..<64).map { UInt8($0) }
    for start in [CipherSpecification.StartValue.plain, .plain64] {
      let cipher = try cipher(.aes256XTS, start, key)
      var low = [UInt8](repeating: 7, count: 512)
      var high = low
      var span = low.mutableRawSpan
      cipher.encrypt(&span, firstSector: 3)
      span = high.mutableRawSpan
      cipher.encrypt(&span, firstSector: 3 + 1 << 32)
      #expect((low == high) == (start == .plain))
    }
  }

  @Test("an XTS key of two equal halves is refused")
  func weakKey() {
    var key = [UInt8](repeating: 5, count: 64)
    #expect(
      SectorCipher(CipherSpecification(.aes256XTS, .plain64), key: SecretBytes(taking: &key))
        == nil)
  }

  struct Derivation: Sendable {
    var hash: HashAlgorithm
    var iterations: Int
    var result: String
  }

  @Test(
    "PBKDF2 gives what RFC 6070 and its kin say",
    arguments: [
      Derivation(hash: .sha1, iterations: 1, result: "0c60c80f961f0e71f3a9b524af6012062fe037a6"),
      Derivation(
        hash: .sha1, iterations: 4096, result: "4b007901b765489abead49d926f721d065a429c1"),
      Derivation(
        hash: .sha256, iterations: 1,
        result: "120fb6cffcf8b32c43e7225256c4f837a86548c92ccc35480805987cb70be17b"),
      Derivation(
        hash: .sha256, iterations: 4096,
        result: "c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a"),
    ])
  func derivation(known: Derivation) {
    let wanted = hex(known.result)
    let found = Crypto.derive(
      from: Array("password".utf8).rawSpan, salt: Array("salt".utf8), iterations: known.iterations,
      hash: known.hash, byteCount: wanted.count)
    #expect(found.withBytes { $0.copied() } == wanted)
  }

  @Test("a secret is text without NUL, and nothing is stripped")
  func secretText() throws {
    var good = Array("p\u{e4}ss\n".utf8)
    let kept = good
    let secret = try SecretBytes(passphrase: &good)
    #expect(secret.withBytes { $0.copied() } == kept && good.isEmpty)
    for bad in [[0x70, 0, 0x77], [0xff], [0xc3]] as [[UInt8]] {
      var bytes = bad
      #expect(throws: EncryptionError.secretNotText) { try SecretBytes(passphrase: &bytes) }
      #expect(bytes.allSatisfy { $0 == 0 })
    }
    var empty: [UInt8] = []
    _ = try SecretBytes(passphrase: &empty)
  }
}
