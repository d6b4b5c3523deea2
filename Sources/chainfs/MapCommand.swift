internal import ArgumentParser
internal import Chain
internal import Control
internal import HostSystem

struct Map: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Tells which layer of a chain holds what, as qemu-img map does.")

  @OptionGroup var argument: ImageArgument
  @OptionGroup var sharing: SharingOption

  func run() throws {
    let disk = try Disk.open(
      DeviceConfiguration(
        name: "image", image: argument.location(), isReadOnly: true,
        locking: sharing.forceShare ? .none : .qemu, encryptedImages: .tablesOnly))
    let layers = try disk.layers()
    let extents = try Self.extents(of: disk)
    if argument.json {
      let objects = extents.map { Self.json(of: $0).line }
      Terminal.write("[" + objects.joined(separator: ",\n") + "]\n")
    } else {
      Terminal.write("offset\tlength\tdepth\tkind\tat\tfile\n")
      for extent in extents { Terminal.write(Self.line(of: extent, layers)) }
    }
    try disk.close()
  }

  /// The whole disk; runs that go on in the same way are one.
  private static func extents(of disk: Disk) throws -> [DiskExtent] {
    var result: [DiskExtent] = []
    var offset = GuestOffset(rawValue: 0)
    while offset.rawValue < disk.virtualSize {
      let next = try disk.extent(at: offset)
      offset = next.range.end
      if let last = result.last, last.goesOn(in: next) {
        result[result.count - 1].range = GuestRange(
          offset: last.range.offset, length: last.range.length + next.range.length)
      } else {
        result.append(next)
      }
    }
    return result
  }

  private static func json(of extent: DiskExtent) -> JSONText {
    var isZero = false
    var isData = false
    var place: JSONText.Member?
    switch extent.kind {
    case .unallocated, .zero: isZero = true
    case .compressed: isData = true
    case .data(let offset):
      isData = true
      place = .init("offset", .number(offset.rawValue))
    }
    return .object(
      [
        .init("start", .number(extent.range.offset.rawValue)),
        .init("length", .number(extent.range.length)),
        .init("depth", .number(UInt64(extent.depth))),
        .init("present", .bool(extent.kind != .unallocated)),
        .init("zero", .bool(isZero)), .init("data", .bool(isData)),
      ] + (place.map { [$0] } ?? []))
  }

  private static func line(of extent: DiskExtent, _ layers: [LayerDescription]) -> String {
    let words: (kind: String, place: String, path: String)
    let path = layers[extent.depth].path
    switch extent.kind {
    case .unallocated: words = ("unallocated", "-", "-")
    case .zero: words = ("zero", "-", path)
    case .compressed: words = ("compressed", "-", path)
    case .data(let offset): words = ("data", String(offset.rawValue), path)
    }
    let range = extent.range
    return "\(range.offset.rawValue)\t\(range.length)\t\(extent.depth)\t\(words.kind)"
      + "\t\(words.place)\t\(words.path)\n"
  }
}

extension DiskExtent {
  /// True if the other run begins where this one ends, in the same layer and the same way.
  fileprivate func goesOn(in next: DiskExtent) -> Bool {
    guard depth == next.depth else { return false }
    switch (kind, next.kind) {
    case (.data(let offset), .data(let nextOffset)):
      return offset.rawValue + range.length == nextOffset.rawValue
    default: return kind == next.kind
    }
  }
}
