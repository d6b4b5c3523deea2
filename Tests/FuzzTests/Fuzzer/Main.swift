import Glibc

// libFuzzer's loop with our targets:
//
//     fuzz TARGET [options and directories of libFuzzer]
//     fuzz --targets             names them
//     fuzz --unpack DIRECTORY    writes the corpus as libFuzzer reads it, a directory for each target
//
// Memory is bounded from inside: an allocation beyond the limit fails, the program stops, and
// libFuzzer keeps the input.

/// The loop; it does not come back.
@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
  _ count: UnsafeMutablePointer<CInt>,
  _ words: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
  _ body: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// libFuzzer's own changes of an input in place; gives the new length.
@_silgen_name("LLVMFuzzerMutate")
private func mutate(_ bytes: UnsafeMutablePointer<UInt8>, _ count: Int, _ room: Int) -> Int

/// What libFuzzer calls to change an input.
@_cdecl("LLVMFuzzerCustomMutator")
public func customMutator(
  _ bytes: UnsafeMutablePointer<UInt8>, _ count: Int, _ room: Int, _ seed: CUnsignedInt
) -> Int {
  guard Fuzz.target == .image, seed & 3 != 0 else { return mutate(bytes, count, room) }
  let buffer = UnsafeMutableBufferPointer(start: bytes, count: room)
  let changed = ImageMutation.mutate(Array(buffer.prefix(count)), seed: UInt64(seed))
  for (index, byte) in changed.prefix(room).enumerated() { buffer[index] = byte }
  return min(changed.count, room)
}

@main
struct Fuzz {
  // Set once, before the loop begins.
  nonisolated(unsafe) static var target = FuzzTarget.header

  static func main() throws {
    let words = CommandLine.arguments
    switch words.dropFirst().first {
    case "--targets": for target in FuzzTarget.allCases { print(target.rawValue) }
    case "--unpack" where words.count == 3: try unpack(words[2])
    case .some(let name):
      guard let target = FuzzTarget(rawValue: name) else { return fail("no target \(name)") }
      self.target = target
      loop([words[0]] + words.dropFirst(2))
    case nil: fail("usage: fuzz TARGET [OPTION...] [DIRECTORY...]")
    }
  }

  private static func say(_ message: String) {
    let line = Array("fuzz: \(message)\n".utf8)
    _ = write(STDERR_FILENO, line, line.count)
  }

  private static func fail(_ message: String) {
    say(message)
    exit(64)
  }

  private static func loop(_ words: [String]) {
    // Before the limit, since these stay.
    if target == .image { precondition(!ImageForm.all.isEmpty, "the corpus has no images") }
    limitMemory()
    var pointers = words.map { strdup($0) } + [nil]
    var count = CInt(words.count)
    pointers.withUnsafeMutableBufferPointer { buffer in
      guard var base = buffer.baseAddress else { return }
      exit(
        runDriver(&count, &base) { bytes, count in
          Fuzz.run(Array(UnsafeBufferPointer(start: bytes, count: count)))
          return 0
        })
    }
  }

  private static func run(_ bytes: [UInt8]) {
    do { try target.run(bytes) } catch {
      say("broken claim: \(error)")
      abort()
    }
  }

  /// No more than 256 MiB on top of what the program has now.
  private static func limitMemory() {
    guard let file = fopen("/proc/self/statm", "r") else { return }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    fgets(&line, 256, file)
    let fields = String(decoding: line.prefix { $0 != 0 }.map(UInt8.init), as: UTF8.self)
      .split(separator: " ")
    guard fields.count > 5, let pages = UInt64(fields[5]) else { return }
    let bytes = rlim_t(pages * 4096 + 256 << 20)
    var limit = rlimit(rlim_cur: bytes, rlim_max: bytes)
    setrlimit(__rlimit_resource_t(RLIMIT_DATA.rawValue), &limit)
  }

  private static func unpack(_ directory: String) throws {
    mkdir(directory, 0o755)
    for target in FuzzTarget.allCases {
      let place = "\(directory)/\(target.rawValue)"
      mkdir(place, 0o755)
      for input in try Corpus.inputs(of: target) {
        guard let file = fopen("\(place)/\(input.name)", "w") else { continue }
        fwrite(input.bytes, 1, input.bytes.count, file)
        fclose(file)
      }
    }
  }
}
