import Foundation
import TestSupport
import Testing

@testable import Qcow2Format

extension Tag {
  @Tag static var format: Self
  @Tag static var qemu: Self
}

/// SplitMix64: the same numbers for the same seed, everywhere.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  /// A generator with a new seed, or the one in CHAINFS_TEST_SEED; prints it first.
  static func announced(_ purpose: String) -> SeededGenerator {
    let given = ProcessInfo.processInfo.environment["CHAINFS_TEST_SEED"].flatMap { UInt64($0) }
    let seed = given ?? UInt64.random(in: 0..<1 << 32)
    print("\(purpose): CHAINFS_TEST_SEED=\(seed)")
    return SeededGenerator(seed: seed)
  }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }

  mutating func bytes(_ count: Int) -> [UInt8] {
    (0..<count).map { _ in UInt8.random(in: 0...255, using: &self) }
  }
}

func parse(_ bytes: [UInt8]) throws(FormatError) -> ImageHeader {
  try ImageHeader.parse(bytes.span.bytes)
}

func template(
  version: Int = 3, clusterBits: Int = 16, refcountOrder: Int = 4, virtualSize: UInt64 = 64 << 20,
  backingFile: String? = nil, backingFormat: String? = nil, lazyRefcounts: Bool = false,
  extendedL2: Bool = false, compression: CompressionMethod = .deflate, preallocated: Bool = false
) throws(FormatError) -> ImageTemplate {
  var options = ImageOptions(virtualSize: virtualSize)
  options.version = version
  options.clusterBits = clusterBits
  options.refcountOrder = refcountOrder
  options.backingFile = backingFile
  options.backingFormat = backingFormat
  options.hasLazyRefcounts = lazyRefcounts
  options.hasExtendedL2 = extendedL2
  options.compression = compression
  options.isPreallocated = preallocated
  return try ImageTemplate.newImage(options)
}

/// The first cluster of a valid image with some of everything.
func sampleCluster(
  version: Int = 3, clusterBits: Int = 16, backingFile: String? = "base.qcow2",
  backingFormat: String? = "qcow2", extra: [HeaderExtension] = []
) throws(FormatError) -> [UInt8] {
  var header = try template(
    version: version, clusterBits: clusterBits, backingFile: backingFile,
    backingFormat: backingFormat
  ).header
  header.extensions += extra
  return try header.encoded()
}

/// `qemu-img`, as far as it is there; under CI=true it has to be.
enum QemuImg {
  static let path = "/usr/bin/qemu-img"
  static var isExpected: Bool {
    FileManager.default.isExecutableFile(atPath: path)
      || ProcessInfo.processInfo.environment["CI"] == "true"
  }

  /// Runs the tool and returns its exit status and all it printed.
  static func run(_ arguments: [String]) throws -> (status: Int32, output: String) {
    let result = try TestSupport.run(["qemu-img"] + arguments)
    return (result.status, result.output + result.errorOutput)
  }
}

/// A directory that is gone when the closure returns.
func withTemporaryDirectory<Result>(_ body: (String) throws -> Result) throws -> Result {
  let path = NSTemporaryDirectory() + "/chainfs-format-" + UUID().uuidString
  try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(atPath: path) }
  return try body(path)
}

/// Writes the image a template describes.
func write(_ template: ImageTemplate, to path: String) throws {
  try Data().write(to: URL(fileURLWithPath: path))
  let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
  defer { try? file.close() }
  try file.write(contentsOf: template.firstCluster)
  try file.write(contentsOf: template.tables(template.tableClusters))
  try file.truncate(atOffset: template.fileLength)
}

func readFile(_ path: String) throws -> [UInt8] {
  [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
}
