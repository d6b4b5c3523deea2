import BlockIO
import HostSystem
import TestSupport
import Testing

@testable import ImageDriver

@Suite(
  "ImageCheck beside qemu-img check", .enabled(if: ToolAvailability.has(["qemu-img", "qemu-io"])))
struct ImageCheckTests {
  static func create(_ options: String, _ size: String = "8M") -> String {
    "qemu-img create -q -f qcow2 -o \(options) $IMAGE \(size)\n"
  }
  static let fill = """
    qemu-io -c 'write 1M 300k' -c 'write 5M 64k' -c 'write 2M 1k' -c 'write -z 3M 192k' \
      -c 'discard 1M 64k' -c 'write 1M 4k' $IMAGE >/dev/null

    """
  static let snapshots = """
    qemu-img snapshot -c one $IMAGE
    qemu-io -c 'write 1M 100k' -c 'write 7M 64k' $IMAGE >/dev/null
    qemu-img snapshot -c two $IMAGE
    qemu-io -c 'write 0 1M' $IMAGE >/dev/null

    """
  static let compressed =
    "qemu-img create -q -f raw base 8M; head -c 3M /dev/urandom | base64 >text;"
    + "dd if=text of=base bs=64k seek=7 conv=notrunc status=none;"

  static let forms = [
    create("compat=0.10") + fill, create("compat=0.10,cluster_size=512", "1M"),
    create("compat=1.1") + fill, create("compat=1.1,lazy_refcounts=on") + fill,
    create("cluster_size=512,refcount_bits=1") + fill,
    create("cluster_size=1024,refcount_bits=64") + fill,
    create("cluster_size=2M,refcount_bits=2") + fill,
    create("preallocation=metadata") + fill, create("preallocation=full,cluster_size=4096"),
    create("compat=1.1", "0"), create("compat=1.1", "1T") + "qemu-io -c 'write 999G 1M' $IMAGE",
    create("compat=1.1") + fill + snapshots,
    create("compat=0.10,cluster_size=4096") + fill + snapshots,
    create("refcount_bits=8,cluster_size=512") + fill + snapshots
      + "qemu-img snapshot -d one $IMAGE",
    compressed + "qemu-img convert -c -O qcow2 base $IMAGE",
    compressed + "qemu-img convert -c -O qcow2 -o cluster_size=4096 base $IMAGE\n" + snapshots,
    compressed + "qemu-img convert -c -O qcow2 -o compression_type=zstd base $IMAGE",
    "qemu-img create -q -f raw base 8M\n" + create("backing_file=base,backing_fmt=raw") + fill,
    create("compat=1.1")
      + "qemu-img bitmap --add $IMAGE b1; qemu-img bitmap --add -g 512 $IMAGE b2\n"
      + fill,
  ]

  @Test("a sound image is found sound, with QEMU's numbers", arguments: forms)
  func sound(_ script: String) throws {
    let image = try CheckedImage(script)
    let report = try image.check()
    #expect(report.isClean, "\(report.findings)")
    try image.expectAgreement()
  }

  // MARK: - Damage

  enum Damage: CaseIterable {
    case dataCountedTwice, dataNotCounted, beyondFile, misaligned, reservedBit, dataNotMarked
    case tableNotMarked, tableLost, tableOutside, tableReservedBit, sharedCluster, compressedMarked
    case blockReservedBit, blockMisaligned, blockOutside, blockShared, blockLost
    case snapshotTableMisaligned, snapshotTableOutside, metadataShared, countedBehindUse
  }

  @Test(
    "damage is counted as QEMU counts it, and a repair of leaks harms nothing",
    arguments: Damage.allCases)
  func damaged(_ damage: Damage) throws {
    let image = try CheckedImage(Self.create("compat=1.1") + Self.fill + Self.snapshots)
    let table = try image.l2Table
    // The guest's clusters at 0, one of the active disk's own, and at 5M, shared with the snapshots.
    let own = table
    let shared = table + 80 * 8
    let host = try image.number(at: own) & 0xff_ffff_ffff_fe00
    let cluster = host >> 16
    switch damage {
    case .dataCountedTwice: try image.setRefcount(of: cluster, to: 2)
    case .dataNotCounted: try image.setRefcount(of: cluster, to: 0)
    case .beyondFile: try image.change(at: own) { $0 + (1 << 40) }
    case .misaligned: try image.change(at: own) { $0 + 512 }
    case .reservedBit: try image.change(at: own) { $0 | 4 }
    case .dataNotMarked: try image.change(at: own) { $0 & ~(1 << 63) }
    case .tableNotMarked: try image.change(at: image.l1Table) { $0 & ~(1 << 63) }
    case .tableLost: try image.change(at: image.l1Table) { _ in 0 }
    case .tableOutside: try image.change(at: image.l1Table) { $0 + (1 << 50) }
    case .tableReservedBit: try image.change(at: image.l1Table) { $0 | 1 << 60 }
    case .sharedCluster: try image.change(at: own + 8) { _ in host | 1 << 63 }
    case .compressedMarked: try image.change(at: own) { _ in 3 << 62 | host }
    case .blockReservedBit: try image.change(at: image.refcountTable) { $0 | 1 }
    case .blockMisaligned: try image.change(at: image.refcountTable) { $0 + 512 }
    case .blockOutside: try image.change(at: image.refcountTable + 8) { _ in 1 << 45 }
    case .blockShared:
      let first = try image.number(at: image.refcountTable)
      try image.change(at: image.refcountTable + 8) { _ in first }
    case .blockLost: try image.change(at: image.refcountTable) { _ in 0 }
    case .snapshotTableMisaligned: try image.change(at: image.snapshots) { $0 + 512 }
    case .snapshotTableOutside: try image.change(at: image.snapshots) { $0 + (1 << 40) }
    case .metadataShared:
      let place = try image.refcountTable
      try image.change(at: shared) { _ in place }
    case .countedBehindUse:
      // The cluster after the one that the file may end in.
      try image.setRefcount(of: try image.open(.readOnly).size() >> 16 + 1, to: 1)
    }
    let report = try image.check()
    #expect(!report.isClean)
    #expect(report.findings.isEmpty == (damage == .countedBehindUse))
    try image.expectAgreement()
    let before = try image.open(.readOnly).bytes(at: 0, count: Int(image.open(.readOnly).size()))
    let after = try image.repair(.leaks)
    if report.corruptions > report.missingCopiedFlags || report.checkErrors > 0 {
      #expect(after == report)
      #expect(try image.open(.readOnly).bytes(at: 0, count: before.count) == before)
    } else {
      #expect(after.isClean)
      try image.expectAgreement()
    }
  }

  // MARK: - Leaks

  @Test("what a writer claimed and never used is a leak, and a repair gives it back")
  func killedWriter() throws {
    let image = try CheckedImage(Self.create("cluster_size=4096") + Self.fill)
    // A ticket may be shorter than the range.
    var length: UInt64 = 0
    do {
      // Dropped without close, as a killed process leaves it; only some entries were flushed.
      let file = try image.open(.readWrite)
      let writer = try Qcow2Image(storage: file)
      for (offset, isFlushed) in [(0, true), (6 << 20, false)] {
        let range = GuestRange(offset: GuestOffset(UInt64(offset)), length: 256 << 10)
        guard case .allocate(let ticket) = try writer.beginWrite(range) else {
          Issue.record("the range was allocated before")
          return
        }
        try file.put(
          [UInt8](repeating: 7, count: Int(ticket.guest.length)), at: ticket.host.rawValue)
        if isFlushed { length = ticket.guest.length }
        try ticket.commit()
        if isFlushed { try writer.flush() }
      }
    }
    try image.expectAgreement()
    let leaked = try image.check()
    #expect(leaked.corruptions == 0 && leaked.leaks > 0 && leaked.leaksBehindEnd > 0)
    let repaired = try image.repair(.leaks)
    #expect(repaired.isClean && repaired.leaksFixed == leaked.leaks)
    try image.expectAgreement()
    let read = try run(
      "qemu-io", "-r", "-c", "read -P 7 0 \(length)", "-c", "read -P 0 6M 256k", image.path)
    #expect(read.status == 0 && !read.output.contains("failed"), "\(read.output)")
  }

  @Test("a cluster that is counted too often and used once is marked again by the repair")
  func markAfterLeak() throws {
    let image = try CheckedImage(Self.create("compat=1.1") + Self.fill)
    // As QEMU leaves it when it is killed while it deletes a snapshot: counted twice, so not marked.
    let entry = try image.l2Table + 16 * 8
    try image.change(at: entry) { $0 & ~(1 << 63) }
    try image.setRefcount(of: try image.number(at: entry) >> 16, to: 2)
    let report = try image.check()
    #expect(report.leaks == 1 && report.corruptions == 0)
    try image.expectAgreement()
    let repaired = try image.repair(.leaks)
    #expect(repaired.isClean && repaired.leaksFixed == 1)
    #expect(try image.number(at: entry) >> 63 == 1)
    try image.expectAgreement()
  }

  @Test("a repair of leaks needs a storage that may be written")
  func readOnly() throws {
    let image = try CheckedImage(Self.create("compat=1.1"))
    let file = try image.open(.readOnly)
    #expect(throws: ImageError.readOnly(path: image.path)) {
      try ImageCheck.repair(storage: file, .leaks)
    }
  }
}
