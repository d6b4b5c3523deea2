internal import FoundationEssentials
internal import HostSystem

// What the next mount has to know of a job that is running now.
//
//     chainfs-job 1 <checksum of the rest, 16 hexadecimal digits>\n
//     {"base":"/images/base.qcow2",...}\n
//
// What is said in version 2 only must not be overlooked by a program that reads version 1: it would
// write a header that nobody has finalized. A record that says none of it is of version 1.
//
// It lies beside the active image as `.<image file>.chainfs-job`, is written before the first byte is
// copied, replaced as a whole when speed or pause change, and goes when the job ends. How far the job
// came is not in it: the image's own tables tell that. A record that is torn, of another version or
// of another image is told of and left alone.

/// The arguments of a job, as they survive the end of the program.
struct JobRecord: Codable, Sendable, Equatable {
  /// File name of the image that it was written for.
  var image: String
  /// Path of the layer that is kept.
  var base: String?
  /// By which string the layer above names it, for a chain that was moved.
  var baseString: String?
  var speed: UInt64
  var onError: ErrorPolicy
  var backingFile: String?
  var isPaused: Bool
  /// Seconds since 1970.
  var started: Int64
  // Version 2 from here on; nil is the default of `stream`.
  /// What a user called the job.
  var id: String?
  var autoFinalize: Bool?
  var autoDismiss: Bool?
  /// It streams into a layer below the active image. Without that, the record of what was an active image
  /// once starts nothing; where the image is mounted itself, the job is one like any other.
  var isInner: Bool?

  private static let kind = "chainfs-job "
  private static let newestVersion = 2

  private static func mark(_ version: Int) -> String { "\(kind)\(version) " }

  private var version: Int {
    id == nil && autoFinalize == nil && autoDismiss == nil && isInner == nil
      ? 1 : Self.newestVersion
  }

  /// Where the record of an image lies.
  static func path(forImage path: String) -> String {
    let (directory, name) = split(path)
    return directory + "." + name + ".chainfs-job"
  }

  /// The last component of a path.
  static func fileName(of path: String) -> String { split(path).name }

  private static func split(_ path: String) -> (directory: String, name: String) {
    guard let slash = path.lastIndex(of: "/") else { return ("", path) }
    let after = path.index(after: slash)
    return (String(path[..<after]), String(path[after...]))
  }

  /// The bytes of the file.
  func encoded() throws(RecordError) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    do {
      let body = Array(try encoder.encode(self)) + [UInt8(ascii: "\n")]
      return Array("\(Self.mark(version))\(Self.checksum(body))\n".utf8) + body
    } catch {
      throw .unwritable(path: image, kind: .invalid, reason: "a name cannot be written as JSON")
    }
  }

  /// Reads the bytes of a file, which anybody may have written.
  init(bytes: [UInt8], path: String) throws(RecordError) {
    guard bytes.count <= 65536 else { throw .ignored(path: path, reason: "it is too long") }
    let marks = (1...Self.newestVersion).map(Self.mark)
    guard let mark = marks.first(where: { bytes.starts(with: $0.utf8) }),
      let line = bytes.firstIndex(of: UInt8(ascii: "\n"))
    else { throw .ignored(path: path, reason: Self.strangeness(of: bytes)) }
    let body = Array(bytes[(line + 1)...])
    let sum = String(decoding: bytes[mark.utf8.count..<line], as: UTF8.self)
    guard sum == Self.checksum(body) else {
      throw .ignored(path: path, reason: "its checksum is wrong, it was torn or edited")
    }
    do {
      self = try JSONDecoder().decode(JobRecord.self, from: Data(body))
    } catch {
      throw .ignored(path: path, reason: "it does not hold what a job needs")
    }
  }

  /// Why a file does not begin as a record does.
  private static func strangeness(of bytes: [UInt8]) -> String {
    if bytes.starts(with: kind.utf8) {
      let rest = String(decoding: bytes.dropFirst(kind.utf8.count).prefix(11), as: UTF8.self)
      let digits = rest.prefix { $0.isNumber }
      if let version = UInt32(digits), version > newestVersion,
        rest.dropFirst(digits.count).first == " "
      {
        return "it is of version \(version), and this chainfs reads up to version \(newestVersion)"
      }
    }
    return "it is not a job record"
  }

  /// FNV-1a of 64 bits: it is to find torn files, not forged ones.
  private static func checksum(_ bytes: [UInt8]) -> String {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    let digits = String(hash, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }

  init(
    image: String, base: String?, baseString: String?, speed: UInt64, onError: ErrorPolicy,
    backingFile: String?, isPaused: Bool, started: Int64, id: String? = nil,
    autoFinalize: Bool? = nil, autoDismiss: Bool? = nil, isInner: Bool? = nil
  ) {
    self.image = image
    self.base = base
    self.baseString = baseString
    self.speed = speed
    self.onError = onError
    self.backingFile = backingFile
    self.isPaused = isPaused
    self.started = started
    self.id = id
    self.autoFinalize = autoFinalize
    self.autoDismiss = autoDismiss
    self.isInner = isInner
  }
}
