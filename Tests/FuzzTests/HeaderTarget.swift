import HostSystem

@testable import Qcow2Format

/// The first cluster of an image. The first two bytes of the input choose a new backing name; the rest
/// is the cluster, which goes on with zeroes.
enum HeaderTarget {
  /// Larger clusters are only parsed as far as they are there.
  private static let longest = 64 << 10

  static func run(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    let choice = input.number16()
    var cluster = Array(input.rest.prefix(longest))
    if let needed = ImageHeader.clusterSizeNeeded(prefix: cluster.rawSpan) {
      cluster += [UInt8](repeating: 0, count: max(0, min(needed, longest) - cluster.count))
    }
    guard let header = try attempt({ try ImageHeader.parse(cluster.rawSpan) }) else { return }
    _ = header.unsupportedFeatures()
    _ = header.featureNames.count
    _ = try attempt { try header.bitmapDirectory() }
    try claimRoundTrip(header, cluster)
    try claimRewrite(header, cluster, choice)
  }

  private static func claimRoundTrip(_ header: ImageHeader, _ cluster: [UInt8]) throws {
    let sector = header.updatingFields(of: Array(cluster.prefix(512)))
    let updated = sector + cluster.dropFirst(512)
    try claim(try ImageHeader.parse(updated.rawSpan) == header, "updated fields read otherwise")
    guard let encoded = try attempt({ try header.encoded() }) else { return }
    var parsed = try ImageHeader.parse(encoded.rawSpan)
    // A name of no bytes is written as none.
    if header.backingFile == "" { parsed.backingFile = "" }
    try claim(parsed == header, "an encoded header reads otherwise")
  }

  /// A new backing reference: before its flip the old header holds, after it the new one.
  private static func claimRewrite(
    _ header: ImageHeader, _ cluster: [UInt8], _ choice: UInt16
  ) throws {
    let length = Int(choice & 0x3ff)
    let name = length == 0 ? nil : String(repeating: "n", count: length)
    let format = [nil, "raw", "qcow2", String(repeating: "f", count: 15)][Int(choice >> 10) & 3]
    var bytes = Array(cluster.prefix(header.geometry.clusterSize))
    let plan = try attempt {
      try ImageHeader.backingRewrite(
        firstCluster: bytes.rawSpan, backingFile: name, backingFormat: format)
    }
    guard let plan else { return }
    for part in plan.preparation {
      try claim(part.offset >= 512, "the preparation writes to the first sector")
      bytes.replaceSubrange(part.offset..<part.offset + part.bytes.count, with: part.bytes)
    }
    try claim(try ImageHeader.parse(bytes.rawSpan) == header, "the preparation changes the header")
    bytes.replaceSubrange(0..<512, with: plan.flip)
    let new = try ImageHeader.parse(bytes.rawSpan)
    try claim(new.backingFile == name, "the new header has another name")
    if name != nil { try claim(new.backingFormat == format, "the new header has another format") }
    var (old, rest) = (header, new)
    for type in [HeaderExtension.backingFormatType, HeaderExtension.featureNamesType] {
      old.extensions.removeAll { $0.type == type }
      rest.extensions.removeAll { $0.type == type }
    }
    rest.backingFile = old.backingFile
    try claim(old == rest, "the new header differs in more than its backing file")
  }
}
