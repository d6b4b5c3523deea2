internal import Glibc
internal import HostSystem

/// One line of /proc/self/mountinfo: what is mounted where, told without touching the mount.
struct MountTableEntry: Equatable {
  /// Major and minor device number, such as `0:53`: it names one mounted file system.
  var device: String
  /// Where it is mounted, as an absolute path without links.
  var path: String
  /// The type, such as `ext4` or `fuse.chainfs`.
  var type: String
  /// What is mounted.
  var source: String

  /// Reads a line as proc(5) describes it:
  ///
  ///     36 35 98:0 /root /mnt/point rw,noatime master:1 - fuse.chainfs source rw
  ///
  /// Between the sixth field and the dash stand any number of optional fields.
  init?(_ line: Substring) {
    let fields = line.split(separator: " ", omittingEmptySubsequences: false)
    guard fields.count > 6, let dash = fields[6...].firstIndex(of: "-"),
      fields.count > dash + 2
    else { return nil }
    device = String(fields[2])
    path = Self.unescaped(fields[4])
    type = String(fields[dash + 1])
    source = Self.unescaped(fields[dash + 2])
  }

  /// Undoes the kernel's escapes: blank, tab, newline and backslash are written as three octal
  /// digits after a backslash.
  private static func unescaped(_ field: Substring) -> String {
    var bytes: [UInt8] = []
    var rest = Substring(field).utf8[...]
    while let byte = rest.popFirst() {
      let digits = rest.prefix(3)
      if byte == UInt8(ascii: "\\"), digits.count == 3,
        let value = UInt8(String(decoding: Array(digits), as: UTF8.self), radix: 8)
      {
        bytes.append(value)
        rest = rest.dropFirst(3)
      } else {
        bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}

/// The mounts that this process sees.
enum MountTable {
  /// What is mounted at a path; the last mount covers earlier ones. The path is absolute and free of
  /// links.
  static func entry(at path: String) throws(SystemError) -> MountTableEntry? {
    try entries().last { $0.path == path }
  }

  static func entries() throws(SystemError) -> [MountTableEntry] {
    try readAll("/proc/self/mountinfo").split(separator: "\n").compactMap(MountTableEntry.init)
  }

  /// All of a file of /proc.
  static func readAll(_ path: String) throws(SystemError) -> String {
    let number = try SystemCall.retrying("open") { openPath(path, O_RDONLY | O_CLOEXEC) }
    let descriptor = OwnedDescriptor(taking: number)
    var text: [UInt8] = []
    while true {
      let part = try read(descriptor.raw)
      if part.isEmpty { break }
      text += part
    }
    try descriptor.close()
    return String(decoding: text, as: UTF8.self)
  }

  private static func read(_ descriptor: Int32) throws(SystemError) -> [UInt8] {
    var part = [UInt8](repeating: 0, count: 64 << 10)
    let count = try SystemCall.retrying("read") {
      // In bounds: the array's own count, for the length of the call.
      unsafe part.withUnsafeMutableBytes { unsafe Glibc.read(descriptor, $0.baseAddress, $0.count) }
    }
    return Array(part.prefix(count))
  }
}
