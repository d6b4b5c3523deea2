import HostSystem

@testable import Qcow2Format

/// Compressed clusters. The first byte of the input chooses method and cluster size, the rest is the
/// stream.
enum CompressedTarget {
  static func run(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    let choice = input.byte()
    let method = choice & 1 == 0 ? CompressionMethod.deflate : .zstd
    let size = 512 << Int(choice >> 1 & 7)
    let stream = Array(input.rest)
    guard let cluster = try inflate(stream, method, size) else { return }
    // The stream's end is not written anywhere, and what follows is somebody else's. Only to a stream
    // without its end mark it may be more of the same, and wrong.
    if let longer = try inflate(stream + [0x55, 0xaa, 0, 1], method, size) {
      try claim(longer == cluster, "what follows a stream changes the cluster")
    }
  }

  private static func inflate(
    _ stream: [UInt8], _ method: CompressionMethod, _ size: Int
  ) throws -> [UInt8]? {
    var cluster = [UInt8](repeating: 0, count: size)
    return try attempt {
      var output = cluster.mutableRawSpan
      try CompressedCluster.inflate(stream.rawSpan, method: method, into: &output)
      return cluster
    }
  }
}
