import BlockIO
import HostSystem
import TestSupport

@testable import Chain
@testable import ImageDriver

// An image in use, and what has to hold of it:
//
//     bytes that can be read are the same for a reader, a writer, and after a repair
//     a repair reports what the next check finds
//     in an image whose tables are sound, a write reads back and changes nothing else, and after close
//     the check is as clean as before
//
// In an image that is not sound two places may share bytes, so there only the first two hold.

/// A disk over hostile files, with a model of what it has to read as.
struct DiskUse {
  private let files: FuzzFiles
  private let options: UInt8
  private var disk: Disk?
  private var model = SectorModel()
  private var isSound = false
  /// No layer below has tables that lead to a place by two ways: memory and disk may differ on those.
  private var isSoundBelow = true
  private var leaks = 0
  private var hadBitmaps = false
  private var snapshots = 0
  private var path = ImageForm.path
  /// Nothing was damaged. Data files have no refcounts: damage there shows in no check.
  private var isWhole: Bool

  /// Opens the disk; nil if it is refused, with a sentence.
  init?(_ files: FuzzFiles, options: UInt8, isWhole: Bool) throws {
    self.files = files
    self.options = options
    self.isWhole = isWhole
    try look()
    if try open() { return }
    _ = try check()
    return nil
  }

  /// The image file as it is now.
  var content: SparseBytes { files.content(of: ImageForm.path) }

  /// What does not need an open image.
  private func look() throws {
    let storage = try files.file(path)
    _ = try attempt { try ForeignFormat.recognized(in: storage) }
    if let description = try attempt({ try ImageDescription(of: storage) }) {
      try claim(
        description.qcow2.map { $0.unsupportedFeatures.allSatisfy { !$0.isEmpty } } ?? true,
        "a feature without a name")
    }
  }

  private func check() throws -> CheckReport? {
    let report = try attempt { try ImageCheck.run(storage: try files.file(path)) }
    for finding in report?.findings ?? [] {
      try claim(!"\(finding)".isEmpty, "a finding without words")
    }
    return report
  }

  // MARK: - Opening and closing

  private func configuration(isReadOnly: Bool) -> DeviceConfiguration {
    DeviceConfiguration(
      name: "vda", image: .qcow2(path: path), isReadOnly: isReadOnly, mapCacheBytes: 1 << 20,
      discard: options & 1 == 0 ? .unmap : .ignore, isGrowable: options & 0x20 == 0,
      detectZeroes: [.off, .on, .unmap, .off][Int(options >> 1 & 3)],
      encryptedImages: options & 0x10 == 0 ? .opened(with: ImageForm.secret) : .tablesOnly)
  }

  private func opened(isReadOnly: Bool) throws -> Disk? {
    files.settle()
    let configuration = configuration(isReadOnly: isReadOnly)
    return try attempt {
      let layers = try ChainOpener(configuration: configuration, files: files).open()
      return Disk(
        layers: layers, configuration: configuration, timeSource: ManualTimeSource(), files: files)
    }
  }

  private mutating func open() throws -> Bool {
    guard let reader = try opened(isReadOnly: true) else { return false }
    let seen = SectorModel(reader)
    _ = try attempt { try reader.close() }
    if options & 8 != 0 { return false }
    guard let disk = try opened(isReadOnly: false) else { return false }
    model = SectorModel(disk)
    try claim(seen.agrees(with: model), "a writer reads other bytes than a reader: \(seen - model)")
    let report = try check()
    isSound =
      report.map { $0.corruptions == 0 && $0.checkErrors == 0 && $0.leaksBehindEnd == 0 } ?? false
    if try files.file(path).usesDataFile, !isWhole { isSound = false }
    // Counted right, yet what is written in place there is somebody else's as well; or the file ends
    // in a table, which a check reads as zeroes and a disk refuses to.
    if isSound, try attempt({ try sharesMetadata(of: files.file(path)) }) != false {
      isSound = false
    }
    leaks = report?.leaks ?? 0
    hadBitmaps = try files.file(path).hasBitmaps
    self.disk = disk
    return true
  }

  /// Closes the disk, and looks at what it leaves.
  func close() throws {
    guard let disk else { return }
    let isClosed = try attempt { try disk.close() } != nil
    files.settle()
    if isSound {
      let report = try ImageCheck.run(storage: try files.file(path))
      // After a repair two entries may share a cluster; when one leaves it, the other keeps it for
      // itself without the mark that says so, which costs a copy and no byte.
      let unmarked = isWhole ? 0 : report.missingCopiedFlags
      try claim(
        report.corruptions == unmarked && report.checkErrors == 0,
        "a sound image is not after it was used: \(report.findings)")
      // Bitmaps that lie on bytes of the guest are given up, and with them their clusters.
      let keepsBitmaps = try files.file(path).hasBitmaps || !hadBitmaps
      if isClosed, keepsBitmaps {
        try claim(report.leaks <= leaks, "a clean close leaves leaks: \(report.findings)")
      }
    }
    guard isClosed, let reader = try opened(isReadOnly: true) else { return }
    let left = SectorModel(reader)
    _ = try attempt { try reader.close() }
    if isSound, isSoundBelow {
      try claim(model.agrees(with: left), "what was closed reads otherwise: \(model - left)")
    }
  }

  // MARK: - Steps

  /// Does one thing with the disk.
  mutating func run(_ step: ImageStep) throws {
    guard let disk else { return }
    trace("step \(step.kind & 15) at \(model.range(step)), sound \(isSound)")
    switch step.kind & 15 {
    case 0: try read(disk)
    case 1: try write(step, disk)
    case 2: try zero(step, disk) { try disk.writeZeroes($0) }
    case 3: try zero(step, disk) { try disk.discard($0) }
    case 4: _ = try attempt { try disk.flush() }
    case 5: try keep(disk) { try disk.preallocate(model.range(step)) }
    case 6: try grow(step, disk)
    case 7: try reopen()
    case 8: try repair(.leaks)
    case 9: try repair(.all)
    case 10: try walk(disk)
    case 11: try snapshot(disk)
    case 12: try keep(disk) { _ = try disk.populate(model.range(step), base: nil) }
    case 13: try stream(disk)
    case 14: try readSnapshots(disk)
    default: try describe(disk)
    }
  }

  private func read(_ disk: Disk) throws {
    if isSound, isSoundBelow {
      let now = SectorModel(disk)
      try claim(model.agrees(with: now), "what nobody wrote to reads otherwise: \(model - now)")
    }
  }

  private mutating func write(_ step: ImageStep, _ disk: Disk) throws {
    let range = model.range(step)
    let bytes =
      step.value & 1 << 40 == 0
      ? SectorModel.pattern(step.value, Int(range.length))
      : [UInt8](repeating: 0, count: Int(range.length))
    let isDone = try attempt { try disk.write(bytes.rawSpan, at: range.offset) } != nil
    model.change(range, to: isDone ? bytes : nil)
    try read(disk)
  }

  private mutating func zero(
    _ step: ImageStep, _ disk: Disk, _ body: (GuestRange) throws -> Void
  ) throws {
    let range = model.range(step)
    let isDone = try attempt { try body(range) } != nil
    model.change(range, to: isDone ? [UInt8](repeating: 0, count: Int(range.length)) : nil)
    try read(disk)
  }

  /// Does what changes no byte of the guest.
  private func keep(_ disk: Disk, _ body: () throws -> Void) throws {
    _ = try attempt(body)
    try read(disk)
  }

  private mutating func grow(_ step: ImageStep, _ disk: Disk) throws {
    let size = disk.virtualSize &+ (step.value & 0xff) << UInt64(step.place % 48)
    let wanted = size & ~511
    // An L1 table of many MiB is nothing wrong. Here its file lies in memory, with every copy of it.
    let cluster = try UInt64(disk.withLayers { $0.active.image.clusterSize })
    if (4 << 20..<64 << 20).contains(wanted / (cluster * cluster) * 64) { return }
    let isDone = try attempt { try disk.grow(to: wanted) } != nil
    if isDone {
      try claim(disk.virtualSize == max(wanted, model.size), "the disk did not grow")
    }
    model.grow(to: disk.virtualSize, isKnown: isDone)
    try read(disk)
  }

  private mutating func reopen() throws {
    try close()
    disk = nil
    _ = try open()
  }

  private mutating func repair(_ extent: RepairExtent) throws {
    try close()
    disk = nil
    let before = try opened(isReadOnly: true).map { reader in
      defer { _ = try? reader.close() }
      return SectorModel(reader)
    }
    files.settle()
    let report = try attempt { try ImageCheck.repair(storage: try files.file(path), extent) }
    if let report {
      let next = try ImageCheck.run(storage: try files.file(path))
      try claim(
        next.corruptions == report.corruptions && next.leaks == report.leaks
          && next.checkErrors == report.checkErrors,
        "a repair says \(report), and the next check \(next)")
    }
    if let before {
      guard let reader = try opened(isReadOnly: true) else {
        throw BrokenClaim("a repaired image does not open")
      }
      let after = SectorModel(reader)
      _ = try attempt { try reader.close() }
      try claim(before.agrees(with: after), "a repair changes the disk: \(before - after)")
    }
    _ = try open()
  }

  private func walk(_ disk: Disk) throws {
    var position = GuestOffset.zero
    for _ in 0..<512 where position.rawValue < disk.virtualSize {
      guard let extent = try attempt({ try disk.extent(at: position) }) else { return }
      try claim(extent.range.offset == position && !extent.range.isEmpty, "an extent elsewhere")
      position = extent.range.end
    }
    guard disk.virtualSize > 0 else { return }
    for start in [0, disk.virtualSize / 2, disk.virtualSize - 1] {
      for body in [disk.nextData, disk.nextHole] {
        let found = try attempt { try body(GuestOffset(start)) }
        if let found, let found { try claim(found.rawValue >= start, "a seek backwards") }
      }
    }
  }

  private mutating func snapshot(_ disk: Disk) throws {
    if snapshots == 2 { return }
    let overlay = "/images/snapshot-\(snapshots)"
    guard try attempt({ try disk.snapshot(path: overlay) }) != nil else { return }
    snapshots += 1
    path = overlay
    // The new image is ours, and has no leaks.
    if !isSound { isSoundBelow = false }
    isSound = true
    leaks = 0
    hadBitmaps = false
    try read(disk)
  }

  private func stream(_ disk: Disk) throws {
    if disk.virtualSize > 64 << 20 { return }
    try keep(disk) {
      _ = try disk.populate(GuestRange(offset: .zero, length: disk.virtualSize), base: nil)
      let length = try disk.streamLength(of: .snapshots)
      if length < 64 << 20 {
        _ = try disk.populate(.snapshots, GuestRange(offset: .zero, length: length), base: nil)
      }
      try disk.rebase(to: nil)
    }
  }

  private func readSnapshots(_ disk: Disk) throws {
    _ = try attempt {
      try disk.withLayers { layers throws(ChainError) in
        guard let active = layers.active.image as? Qcow2Image else { return }
        try onImage { () throws(ImageError) in
          for name in ["1", "2"] {
            guard let image = try SnapshotImage(named: name, of: active) else { continue }
            var position: UInt64 = 0
            while position < min(image.virtualSize, SectorModel.window) {
              let limit = min(image.virtualSize - position, 4096)
              position += try image.mapping(at: GuestOffset(position), upTo: limit).length
            }
          }
        }
      }
    }
  }

  private func describe(_ disk: Disk) throws {
    _ = try attempt { try disk.layers() }
    _ = try attempt { try disk.allocatedBytes() }
    _ = try attempt { try disk.streamExtents(from: .zero, base: nil, limit: 64) }
  }
}

extension MemoryStorage {
  /// The guest's bytes are in another file.
  fileprivate var usesDataFile: Bool {
    get throws { try bytes(at: 72, count: 8)[7] & 4 != 0 }
  }

  /// Bitmaps are in force.
  fileprivate var hasBitmaps: Bool {
    get throws { try bytes(at: 88, count: 8)[7] & 1 != 0 }
  }
}
