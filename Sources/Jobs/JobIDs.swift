internal import HostSystem

/// The ids of the jobs of a mount, of which no two are the same.
///
/// An id is taken from the moment at which its job is asked for until the job is gone.
package final class JobIDs: Sendable {
  private let taken = Monitor<Set<String>>([])

  /// No id is taken yet.
  package init() {}

  /// Takes an id; false if another job has it.
  func claim(_ id: String) -> Bool {
    taken.withLock { $0.insert(id).inserted }
  }

  /// Gives an id back.
  func release(_ id: String) {
    taken.withLock { _ = $0.remove(id) }
  }

  /// QEMU's rule for what a user may give: a letter, then letters, digits, hyphens, dots and
  /// underscores.
  package static func isWellFormed(_ id: String) -> Bool {
    guard let first = id.utf8.first, isLetter(first) else { return false }
    return id.utf8.dropFirst().allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."),
        UInt8(ascii: "_"):
        true
      default: isLetter(byte)
      }
    }
  }

  private static func isLetter(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"): true
    default: false
    }
  }
}
