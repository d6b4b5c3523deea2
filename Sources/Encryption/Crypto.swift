// The few things that libcrypto is asked for, and all pointers of this module.
//
// Buffers are the caller's spans; a pointer ends with the call that it was made for. The one thing that
// stays is a cipher context, which is owned by exactly one value and freed, with its key wiped, by
// libcrypto when that value goes.

internal import CCrypto
internal import HostSystem

/// A hash, by the name that LUKS has for it.
package enum HashAlgorithm: String, CaseIterable, Sendable {
  case sha1, sha224, sha256, sha384, sha512

  /// The length of a digest.
  var byteCount: Int {
    switch self {
    case .sha1: 20
    case .sha224: 28
    case .sha256: 32
    case .sha384: 48
    case .sha512: 64
    }
  }

  fileprivate var function: OpaquePointer? {
    // Alive: libcrypto's own constants.
    switch self {
    case .sha1: unsafe EVP_sha1()
    case .sha224: unsafe EVP_sha224()
    case .sha256: unsafe EVP_sha256()
    case .sha384: unsafe EVP_sha384()
    case .sha512: unsafe EVP_sha512()
    }
  }
}

/// Hashes, derived keys, and memory that forgets.
enum Crypto {
  /// The digest of some bytes.
  static func digest(_ bytes: RawSpan, _ hash: HashAlgorithm) -> [UInt8] {
    var result = [UInt8](repeating: 0, count: hash.byteCount)
    // In bounds: the result has the digest's own length. Alive: inside the two closures.
    let status = unsafe bytes.withUnsafeBytes { source in
      unsafe result.withUnsafeMutableBufferPointer { target in
        unsafe EVP_Digest(
          source.baseAddress, source.count, target.baseAddress, nil, hash.function, nil)
      }
    }
    precondition(status == 1, "no memory for a digest")
    return result
  }

  /// PBKDF2: `byteCount` bytes from a secret and a salt.
  static func derive(
    from secret: RawSpan, salt: [UInt8], iterations: Int, hash: HashAlgorithm, byteCount: Int
  ) -> SecretBytes {
    var result = [UInt8](repeating: 0, count: byteCount)
    // In bounds: each count is its buffer's own. Alive: inside the three closures. An empty secret
    // has no address, which libcrypto takes for the empty password.
    let status = unsafe secret.withUnsafeBytes { secret in
      unsafe salt.withUnsafeBufferPointer { salt in
        unsafe result.withUnsafeMutableBufferPointer { target in
          unsafe PKCS5_PBKDF2_HMAC(
            secret.assumingMemoryBound(to: CChar.self).baseAddress, Int32(secret.count),
            salt.baseAddress, Int32(salt.count), Int32(iterations), hash.function,
            Int32(target.count), target.baseAddress)
        }
      }
    }
    precondition(status == 1, "no memory for a derived key")
    return SecretBytes(taking: &result)
  }

  /// Overwrites bytes in a way that no compiler leaves out.
  static func wipe(_ bytes: inout [UInt8]) {
    // In bounds and alive: the array's own memory, inside the closure.
    unsafe bytes.withUnsafeMutableBytes { memory in
      unsafe OPENSSL_cleanse(memory.baseAddress, memory.count)
    }
  }

  /// Compares in a time that tells nothing about where two byte strings differ.
  static func isEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool {
    if left.count != right.count { return false }
    // In bounds: both have this count. Alive: inside the closures.
    return unsafe left.withUnsafeBytes { left in
      unsafe right.withUnsafeBytes { right in
        unsafe CRYPTO_memcmp(left.baseAddress, right.baseAddress, left.count) == 0
      }
    }
  }
}

/// What a cipher context does with bytes.
enum CipherDirection: Int32 {
  case decrypt = 0
  case encrypt = 1
}

/// A block cipher with its key, for one direction.
///
/// One that several threads share never changes: a copy does the work, since a context takes in the
/// start value of each sector.
@safe struct CipherContext: ~Copyable, @unchecked Sendable {
  // Sendable: the context belongs to this value alone, and all that several threads can do with a
  // value they share is to copy it, which libcrypto allows: the original is only read.
  private let context: OpaquePointer

  /// A cipher of libcrypto with a key; nil if the key is not fit for it.
  init?(_ algorithm: CipherAlgorithm, key: RawSpan, _ direction: CipherDirection) {
    precondition(key.byteCount == algorithm.keyByteCount, "a key of another cipher")
    // Owned here, freed in deinit or below.
    guard let context = unsafe EVP_CIPHER_CTX_new() else {
      fatalError("no memory for a cipher")
    }
    // In bounds: the key has the cipher's length, see above. Alive: inside the closure.
    let status = unsafe key.withUnsafeBytes { key in
      unsafe EVP_CipherInit_ex(
        context, algorithm.function, nil,
        key.assumingMemoryBound(to: UInt8.self).baseAddress, nil, direction.rawValue)
    }
    // Sectors are whole blocks, so nothing is ever padded.
    let padding = unsafe EVP_CIPHER_CTX_set_padding(context, 0)
    guard status == 1, padding == 1 else {
      unsafe EVP_CIPHER_CTX_free(context)
      return nil
    }
    unsafe self.context = context
  }

  private init() {
    // Owned here, freed in deinit.
    guard let context = unsafe EVP_CIPHER_CTX_new() else {
      fatalError("no memory for a cipher")
    }
    unsafe self.context = context
  }

  deinit {
    // Alive until here, and freed once: the value is not copied. The key is wiped with it.
    unsafe EVP_CIPHER_CTX_free(context)
  }

  /// A copy for one thread to work with.
  func copy() -> CipherContext {
    let copy = CipherContext()
    // Alive: both belong to a value in this scope.
    let status = unsafe EVP_CIPHER_CTX_copy(copy.context, context)
    precondition(status == 1, "no memory for a cipher")
    return copy
  }

  /// Encrypts or decrypts whole blocks in place, from a start value of 16 bytes on.
  mutating func apply(startValue: InlineArray<16, UInt8>, to bytes: inout MutableRawSpan) {
    precondition(bytes.byteCount.isMultiple(of: 16), "a cipher takes whole blocks")
    var written: Int32 = 0
    let count = Int32(bytes.byteCount)
    // In bounds: 16 bytes are the largest start value that a cipher here takes, and as many bytes
    // come out as go in. Alive: inside the closures; in place is allowed where both are the same.
    let status = unsafe startValue.span.withUnsafeBufferPointer { start in
      unsafe bytes.withUnsafeMutableBytes { memory in
        let memory = unsafe memory.assumingMemoryBound(to: UInt8.self).baseAddress
        guard
          unsafe EVP_CipherInit_ex(context, nil, nil, nil, start.baseAddress, -1) == 1
        else { return Int32(0) }
        return unsafe EVP_CipherUpdate(context, memory, &written, memory, count)
      }
    }
    precondition(status == 1 && written == count, "the cipher failed")
  }
}

extension CipherAlgorithm {
  fileprivate var function: OpaquePointer? {
    // Alive: libcrypto's own constants.
    switch self {
    case .aes128XTS: unsafe EVP_aes_128_xts()
    case .aes256XTS: unsafe EVP_aes_256_xts()
    case .aes128CBC: unsafe EVP_aes_128_cbc()
    case .aes192CBC: unsafe EVP_aes_192_cbc()
    case .aes256CBC: unsafe EVP_aes_256_cbc()
    case .aes256ECB: unsafe EVP_aes_256_ecb()
    }
  }
}
