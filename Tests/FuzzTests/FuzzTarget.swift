// Hostile bytes, and what must hold whatever they are.
//
//     bytes --> target --> the parser or the image driver under test --> claims
//
// A target takes any bytes. It must not trap, hang or take memory without bound; what it finds broken
// that is no trap it throws as a `BrokenClaim`: what was written reads back, what was encoded parses
// to the same, an error has a sentence, a repaired image checks clean.
//
// The same targets have two drivers. The fuzzer (Fuzzer/Main.swift, built by mount-helpers/fuzz) makes
// bytes up and keeps those that reach new code. The tests replay the corpus: seeds, and every input
// that once broke something.

import Glibc

/// One entry to the code that hostile bytes reach.
enum FuzzTarget: String, CaseIterable, Sendable {
  /// Header, extensions, backing name, and its rewriting.
  case header
  /// Entries of L1, L2, refcount and bitmap tables, cluster layouts, refcounts.
  case entries
  /// The snapshot directory.
  case snapshots
  /// The bitmap directory.
  case bitmaps
  /// Deflate and zstd streams.
  case compressed
  /// Backing names: paths, `file:`, `json:`.
  case names
  /// LUKS headers.
  case luks
  /// Records of jobs.
  case record
  /// Commands as they are written to control files.
  case control
  /// What a client of the QMP socket sends.
  case qmp
  /// An image that QEMU made, damaged in its metadata, and used through a disk.
  case image
  /// The bytes of a whole image file.
  case file

  /// Runs the code under test; throws a `BrokenClaim` if something is not as it has to be.
  func run(_ bytes: [UInt8]) throws {
    switch self {
    case .header: try HeaderTarget.run(bytes)
    case .entries: try EntriesTarget.run(bytes)
    case .snapshots: try DirectoryTarget.runSnapshots(bytes)
    case .bitmaps: try DirectoryTarget.runBitmaps(bytes)
    case .compressed: try CompressedTarget.run(bytes)
    case .names: try NamesTarget.run(bytes)
    case .luks: try LUKSTarget.run(bytes)
    case .record: try RecordTarget.run(bytes)
    case .control: try ControlTarget.run(bytes)
    case .qmp: try QMPTarget.run(bytes)
    case .image: try ImageTarget.run(bytes)
    case .file: try FileTarget.run(bytes)
    }
  }
}

/// Something that has to hold for all bytes did not hold for these.
struct BrokenClaim: Error, CustomStringConvertible {
  var description: String

  init(_ description: String) { self.description = description }
}

/// Throws unless the condition holds.
func claim(_ condition: Bool, _ description: @autoclosure () -> String) throws(BrokenClaim) {
  if !condition { throw BrokenClaim(description()) }
}

/// Throws unless the error says something.
func claimSentence(_ error: any Error) throws(BrokenClaim) {
  if error is BrokenClaim { throw BrokenClaim("\(error)") }
  let sentence = "\(error)"
  try claim(
    sentence.count > 8 && sentence.contains(" "), "an error without a sentence: \(sentence)")
}

/// CHAINFS_FUZZ_TRACE tells what a target does, for whoever looks for the cause of a finding.
private let isTracing = getenv("CHAINFS_FUZZ_TRACE") != nil

/// Prints a line if somebody wants to see it.
func trace(_ line: @autoclosure () -> String) {
  if !isTracing { return }
  // Unbuffered: the next step may be the last.
  let bytes = Array((line() + "\n").utf8)
  _ = write(STDERR_FILENO, bytes, bytes.count)
}

/// Runs a body, and gives nil if it threw an error with a sentence.
func attempt<Value>(_ body: () throws -> Value) throws(BrokenClaim) -> Value? {
  do { return try body() } catch {
    trace("  refused: \(error)")
    try claimSentence(error)
    return nil
  }
}

/// Takes numbers off the front of hostile bytes; behind their end there are zeroes.
struct FuzzInput {
  private(set) var rest: ArraySlice<UInt8>

  init(_ bytes: [UInt8]) { rest = bytes[...] }

  var isEmpty: Bool { rest.isEmpty }

  mutating func byte() -> UInt8 { rest.popFirst() ?? 0 }
  mutating func number16() -> UInt16 { UInt16(byte()) | UInt16(byte()) << 8 }
  mutating func number32() -> UInt32 { UInt32(number16()) | UInt32(number16()) << 16 }
  mutating func number64() -> UInt64 { UInt64(number32()) | UInt64(number32()) << 32 }

  /// Up to `count` bytes.
  mutating func bytes(_ count: Int) -> [UInt8] {
    let taken = Array(rest.prefix(count))
    rest = rest.dropFirst(count)
    return taken
  }
}
