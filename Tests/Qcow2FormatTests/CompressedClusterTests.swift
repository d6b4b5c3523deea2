import CZlib
import CZstd
import Foundation
import Testing

@testable import Qcow2Format

/// A raw deflate stream with QEMU's small window.
func deflated(_ bytes: [UInt8], windowBits: Int32 = 12) -> [UInt8] {
  var stream = z_stream()
  let status = deflateInit2_(
    &stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -windowBits, 9, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
    Int32(MemoryLayout<z_stream>.size))
  precondition(status == Z_OK)
  defer { deflateEnd(&stream) }
  var input = bytes
  var output = [UInt8](repeating: 0, count: bytes.count * 2 + 1024)
  let count = output.count
  input.withUnsafeMutableBufferPointer { source in
    output.withUnsafeMutableBufferPointer { target in
      stream.next_in = source.baseAddress
      stream.avail_in = UInt32(source.count)
      stream.next_out = target.baseAddress
      stream.avail_out = UInt32(count)
      precondition(deflate(&stream, Z_FINISH) == Z_STREAM_END)
    }
  }
  return Array(output.prefix(count - Int(stream.avail_out)))
}

func zstandard(_ bytes: [UInt8]) -> [UInt8] {
  var output = [UInt8](repeating: 0, count: ZSTD_compressBound(bytes.count))
  let count = ZSTD_compress(&output, output.count, bytes, bytes.count, 3)
  precondition(ZSTD_isError(count) == 0)
  return Array(output.prefix(count))
}

func inflated(
  _ bytes: [UInt8], _ method: CompressionMethod, clusterSize: Int
) throws(FormatError) -> [UInt8] {
  var output = [UInt8](repeating: 0xee, count: clusterSize)
  var span = output.mutableSpan
  var raw = span.mutableBytes
  try CompressedCluster.inflate(bytes.span.bytes, method: method, into: &raw)
  return output
}

@Suite("CompressedCluster", .tags(.format))
struct CompressedClusterTests {
  /// Made once: the tests run side by side, and several want all of it.
  private static let longest: [UInt8] = {
    var bytes = [UInt8](repeating: 0, count: 6 << 20)
    for place in bytes.indices {
      bytes[place] = UInt8(truncatingIfNeeded: place / 7 &* (place / 512))
    }
    return bytes
  }()

  static func content(_ count: Int) -> [UInt8] { Array(longest.prefix(count)) }

  @Test(
    "a cluster comes back, with whatever follows its stream",
    arguments: [512, 4096, 65536, 2 << 20])
  func roundTrip(size: Int) throws {
    let content = Self.content(size)
    let garbage: [UInt8] = [0xff, 0x12, 0x00, 0x28, 0xb5]
    #expect(try inflated(deflated(content), .deflate, clusterSize: size) == content)
    #expect(try inflated(deflated(content) + garbage, .deflate, clusterSize: size) == content)
    #expect(
      try inflated(deflated(content, windowBits: 15), .deflate, clusterSize: size) == content)
    #expect(try inflated(zstandard(content), .zstd, clusterSize: size) == content)
    #expect(try inflated(zstandard(content) + garbage, .zstd, clusterSize: size) == content)
  }

  @Test("a cluster may be several zstd frames")
  func frames() throws {
    let content = Self.content(65536)
    let parts = [0..<1000, 1000..<40000, 40000..<65536].flatMap { zstandard(Array(content[$0])) }
    #expect(try inflated(parts, .zstd, clusterSize: 65536) == content)
  }

  @Test("a deflate stream that goes on after the cluster is full is taken")
  func longDeflate() throws {
    let content = Self.content(65536)
    #expect(
      try inflated(deflated(content), .deflate, clusterSize: 4096) == Array(content.prefix(4096)))
  }

  @Test("a zstd frame that goes on after the cluster is full is damage")
  func longZstd() throws {
    #expect(throws: FormatError.self) {
      try inflated(zstandard(Self.content(300_000)), .zstd, clusterSize: 4096)
    }
  }

  @Test("a stream that does not fill the cluster is damage", arguments: [0, 1, 100])
  func short(missing: Int) throws {
    let content = Self.content(4096)
    for (stream, method) in [
      (deflated(content), CompressionMethod.deflate), (zstandard(content), .zstd),
    ] {
      #expect(throws: FormatError.self) { try inflated(stream, method, clusterSize: 4097) }
      let cut = Array(stream.prefix(stream.count / 2 - min(missing, stream.count / 4)))
      #expect(throws: FormatError.self) { try inflated(cut, method, clusterSize: 4096) }
      #expect(throws: FormatError.self) { try inflated([], method, clusterSize: 4096) }
    }
  }

  @Test("damaged streams are inflated or refused, never more")
  func damage() {
    var generator = SeededGenerator.announced("damaged streams")
    let content = Self.content(4096)
    for (valid, method) in [
      (deflated(content), CompressionMethod.deflate), (zstandard(content), .zstd),
    ] {
      for _ in 0..<1500 {
        var stream = valid
        for _ in 0..<Int.random(in: 1...4, using: &generator) {
          let place = Int.random(in: 0..<stream.count, using: &generator)
          stream[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
        }
        _ = try? inflated(stream, method, clusterSize: 4096)
        _ = try? inflated(generator.bytes(64), method, clusterSize: 4096)
      }
    }
  }

  @Test(
    "what qemu-img compresses reads the same here", .tags(.qemu), .enabled(if: QemuImg.isExpected),
    arguments: ["zlib", "zstd"], ["512", "65536", "2M"])
  func qemu(method: String, clusterSize: String) throws {
    try withTemporaryDirectory { directory in
      let raw = Self.content(6 << 20)
      try Data(raw).write(to: URL(fileURLWithPath: directory + "/disk.raw"))
      let path = directory + "/disk.qcow2"
      let converted = try QemuImg.run([
        "convert", "-f", "raw", "-O", "qcow2", "-c", "-o",
        "compression_type=\(method),cluster_size=\(clusterSize)", directory + "/disk.raw", path,
      ])
      try #require(converted.status == 0, "\(converted.output)")
      let file = try readFile(path)
      let (disk, compressed) = try wholeDisk(of: file)
      #expect(disk == raw)
      #expect(compressed > 0)
    }
  }

  /// All guest bytes of an image without a backing file, and how many clusters were compressed.
  private func wholeDisk(of file: [UInt8]) throws -> ([UInt8], Int) {
    let header = try parse(file)
    let geometry = header.geometry
    var disk: [UInt8] = []
    var compressed = 0
    for start in stride(from: 0, to: geometry.virtualSize, by: geometry.clusterSize) {
      let l1Place = Int(header.l1TableOffset) + geometry.l1Index(start) * 8
      let l1 = L1Entry(rawValue: BigEndian.uint64(file, at: l1Place))
      guard let table = try l1.table(in: geometry) else {
        disk += [UInt8](repeating: 0, count: geometry.clusterSize)
        continue
      }
      let l2Place = Int(table) + geometry.l2Index(start) * 8
      switch try L2Entry(rawValue: BigEndian.uint64(file, at: l2Place)).meaning(geometry) {
      case .unallocated, .zero, .zeroPreallocated:
        disk += [UInt8](repeating: 0, count: geometry.clusterSize)
      case .data(let offset, _):
        disk += file[Int(offset)..<Int(offset) + geometry.clusterSize]
      case .compressed(let location):
        compressed += 1
        let end = min(Int(location.hostOffset) + location.byteCount, file.count)
        disk += try inflated(
          Array(file[Int(location.hostOffset)..<end]), header.compressionType,
          clusterSize: geometry.clusterSize)
      }
    }
    return (Array(disk.prefix(Int(geometry.virtualSize))), compressed)
  }
}
