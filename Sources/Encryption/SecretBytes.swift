internal import HostSystem

/// A passphrase or a key: bytes that are overwritten when the last user is gone.
///
/// They may still reach a swap device or a core dump while they are in use.
package final class SecretBytes: Sendable {
  private let bytes: Monitor<[UInt8]>

  /// Takes the bytes over, and leaves an empty array behind.
  package init(taking bytes: inout [UInt8]) {
    // Moved, not copied: the array has one owner at any time, so that there is one place to wipe.
    var own: [UInt8] = []
    swap(&own, &bytes)
    self.bytes = Monitor(own)
  }

  /// Takes a passphrase over, which has to be text without NUL as it has to be for QEMU.
  ///
  /// Nothing is stripped: a newline at the end is a part of it.
  package convenience init(passphrase bytes: inout [UInt8]) throws(EncryptionError) {
    let isText: Bool
    do {
      _ = try UTF8Span(validating: bytes.span)
      isText = !bytes.contains(0)
    } catch {
      isText = false
    }
    guard isText else {
      Crypto.wipe(&bytes)
      throw .secretNotText
    }
    self.init(taking: &bytes)
  }

  deinit {
    bytes.withLock { Crypto.wipe(&$0) }
  }

  /// Lends the bytes for reading.
  package func withBytes<Result: ~Copyable & Sendable>(_ body: (RawSpan) -> Result) -> Result {
    bytes.withLock { body($0.rawSpan) }
  }
}
