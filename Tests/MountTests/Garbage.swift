import TestSupport

/// Bytes that nobody should write to a control file, and some that are commands by accident.
///
/// A snapshot makes the file that it is told to. So what is thrown at it has no slash of its own, and no
/// path in it leads out of the directory of the test. A `q` ends the mount, so no line of the monitor has one.
struct Garbage {
  static let commands: [String: [String]] = [
    "stream": [
      "", "base=base speed=1", "base=mid speed=4k on-error=stop", "speed=1M on-error=ignore",
      "speed=1 on-error=enospc", "'base'", "base=base backing-file=base", "base=\"mid\" speed=8K",
    ],
    "cancel": ["", "1"],
    "pause": ["", "1", " 1 "],
    "resume": ["", "1"],
    "stop": ["", "1"],
    "cont": ["", "1"],
    "speed": ["0", "1", "200M", "9223372036854775807", "8796093022207M", "1G"],
    "snapshot": ["top", "new format=qcow2", "new mode=existing", "new mode=absolute-paths"],
    "../snapshot": ["vda=top", "vda=new format=qcow2", "vda=new vdb=new", "mode=existing vda=new"],
    "../speed": ["0", "1", "200M", "9223372036854775807", "8796093022207M", "1G"],
    "../monitor": [
      "block_stream vda 1B base", "block_job_cancel vda", "block_job_pause vda", "s", "cont",
      "block_job_resume vda", "block_job_set_speed vda 1M", "block_resize vda 64", "info block -v",
      "info block -n", "info block-jobs", "info status", "help", "help info",
    ],
  ]

  private var random: SeededGenerator
  private let directory: String

  init(seed: UInt64, directory: String) {
    random = SeededGenerator(seed: seed)
    self.directory = directory
  }

  mutating func number(below bound: Int) -> Int { Int.random(in: 0..<bound, using: &random) }

  /// One write to the control file `verb`.
  mutating func bytes(for verb: String) -> [UInt8] {
    var bytes: [UInt8]
    switch number(below: 8) {
    case 0: bytes = random.bytes(number(below: 80))
    case 1: bytes = random.bytes(number(below: 9000))
    case 2: bytes = [UInt8](repeating: UInt8(ascii: "a"), count: 4090 + number(below: 12))
    case 3: bytes = (0..<number(below: 60)).map { _ in UInt8(32 + number(below: 95)) }
    case 4:
      let words = (0..<number(below: 900)).map { "key\($0)=\($0)" }
      bytes = Array(words.joined(separator: " ").utf8)
    default: bytes = mutated(verb)
    }
    if verb.hasSuffix("monitor") { bytes.removeAll { $0 == UInt8(ascii: "q") } }
    guard verb.hasSuffix("snapshot") else { return bytes }
    bytes.removeAll { $0 == UInt8(ascii: "/") }
    // The name is there already: a file that is no image, and the disk's own image.
    if number(below: 4) == 0 {
      let device = verb == "snapshot" ? "" : "vda="
      let name = number(below: 2) == 0 ? "top" : "note"
      bytes = Array("\(device)\(directory)/\(name) ".utf8) + bytes
    }
    return bytes
  }

  private mutating func mutated(_ verb: String) -> [UInt8] {
    let all = Self.commands[verb] ?? [""]
    var bytes = Array((all[number(below: all.count)] + "\n").utf8)
    for _ in 0..<number(below: 4) {
      let place = number(below: bytes.count + 1)
      switch number(below: 5) {
      case 0: bytes.insert(UInt8(number(below: 256)), at: place)
      case 1 where place < bytes.count: bytes.remove(at: place)
      case 2 where place < bytes.count: bytes[place] ^= UInt8(1 << number(below: 8))
      case 3: bytes.insert(contentsOf: bytes, at: place)
      default: bytes.removeLast(bytes.count - place)
      }
    }
    return bytes
  }
}
