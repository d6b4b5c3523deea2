internal import ArgumentParser
internal import Control
internal import Encryption
internal import ImageDriver

struct Info: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Tells what an image's header says.")

  @OptionGroup var argument: ImageArgument
  @OptionGroup var sharing: SharingOption

  func run() throws {
    let image = try ImageFile.describe(
      argument.path, isRaw: argument.isRaw, isLocked: !sharing.forceShare)
    Terminal.write(argument.json ? Self.json(of: image).line + "\n" : Self.text(of: image))
  }

  private static func text(of image: ImageDescription) -> String {
    var lines = [
      "image: \(image.path)", "file format: \(image.formatName)",
      "virtual size: \(SizeText.forPeople(image.virtualSize)) (\(image.virtualSize) bytes)",
      "disk size: \(SizeText.forPeople(image.allocatedBytes))",
    ]
    if image.isEncrypted { lines.append("encrypted: yes") }
    if let size = image.clusterSize { lines.append("cluster size: \(size)") }
    if let backing = image.backing {
      lines.append("backing file: \(backing.name)")
      if let format = backing.format { lines.append("backing file format: \(format)") }
    }
    if let qcow2 = image.qcow2 {
      lines += [
        "version: \(qcow2.version)", "refcount bits: \(qcow2.refcountBits)",
        "compression: \(qcow2.compression)", "lazy refcounts: \(qcow2.hasLazyRefcounts)",
        "corrupt: \(qcow2.isCorrupt)", "extended l2: \(qcow2.hasExtendedL2)",
        "internal snapshots: \(qcow2.snapshots.count)",
      ]
      lines += SnapshotListing.lines(of: qcow2.snapshots)
      for bitmap in qcow2.bitmaps {
        let flags = bitmap.flags.isEmpty ? "disabled" : bitmap.flags.joined(separator: ", ")
        lines.append(
          "bitmap: \(SnapshotListing.plain(bitmap.name)), granularity \(bitmap.granularity),"
            + " \(flags)")
      }
      if let name = qcow2.dataFile {
        lines += ["data file: \(name)", "data file raw: \(qcow2.isDataFileRaw)"]
      }
      if let luks = qcow2.luks {
        lines.append(
          "encryption: luks, \(luks.cipher.cipherName)-\(luks.cipher.modeName)-"
            + "\(luks.cipher.startValueName), \(luks.hash.rawValue), "
            + "\(luks.slots.count(where: \.isActive)) of \(luks.slots.count) key slots in use")
      }
      if qcow2.isDirty { lines.append("dirty: true") }
      if !qcow2.unsupportedFeatures.isEmpty {
        lines.append("not supported: \(qcow2.unsupportedFeatures.joined(separator: ", "))")
      }
    }
    return lines.joined(separator: "\n") + "\n"
  }

  /// The members that qemu-img prints, with its names.
  static func json(of image: ImageDescription) -> JSONText {
    var members: [JSONText.Member] = [
      .init("virtual-size", .number(image.virtualSize)), .init("filename", .string(image.path)),
    ]
    if let size = image.clusterSize {
      members.append(.init("cluster-size", .number(UInt64(size))))
    }
    members += [
      .init("format", .string(image.formatName)),
      .init("actual-size", .number(image.allocatedBytes)),
    ]
    if let backing = image.backing {
      members.append(.init("backing-filename", .string(backing.name)))
      if let format = backing.format {
        members.append(.init("backing-filename-format", .string(format)))
      }
    }
    if image.isEncrypted { members.append(.init("encrypted", .bool(true))) }
    if let qcow2 = image.qcow2 {
      if !qcow2.snapshots.isEmpty {
        members.append(.init("snapshots", SnapshotListing.json(of: qcow2.snapshots)))
      }
      members.append(.init("dirty-flag", .bool(qcow2.isDirty)))
      let encryption: [JSONText.Member] =
        qcow2.luks.map { [.init("encrypt", json(of: $0))] } ?? []
      var data: [JSONText.Member] = [
        .init("compat", .string(qcow2.version == 2 ? "0.10" : "1.1")),
        .init("compression-type", .string(qcow2.compression)),
        .init("refcount-bits", .number(UInt64(qcow2.refcountBits))),
      ]
      if qcow2.version >= 3 {
        data += [
          .init("lazy-refcounts", .bool(qcow2.hasLazyRefcounts)),
          .init("corrupt", .bool(qcow2.isCorrupt)),
          .init("extended-l2", .bool(qcow2.hasExtendedL2)),
        ]
      }
      if let name = qcow2.dataFile {
        data += [
          .init("data-file", .string(name)), .init("data-file-raw", .bool(qcow2.isDataFileRaw)),
        ]
      }
      if !qcow2.bitmaps.isEmpty {
        data.append(.init("bitmaps", .array(qcow2.bitmaps.map { json(of: $0) })))
      }
      data += encryption
      data += [
        .init("unsupported", .array(qcow2.unsupportedFeatures.map { .string($0) }))
      ]
      members.append(
        .init(
          "format-specific",
          .object([.init("type", .string("qcow2")), .init("data", .object(data))])))
    }
    return .object(members)
  }

  private static func json(of bitmap: PersistentBitmap) -> JSONText {
    .object([
      .init("flags", .array(bitmap.flags.map { .string($0) })), .init("name", .string(bitmap.name)),
      .init("granularity", .number(bitmap.granularity)),
    ])
  }

  private static func json(of luks: LUKSHeader) -> JSONText {
    let slots = luks.slots.map { slot in
      var members: [JSONText.Member] = [.init("active", .bool(slot.isActive))]
      if slot.isActive {
        members += [
          .init("iters", .number(UInt64(slot.iterations))),
          .init("stripes", .number(UInt64(slot.stripes))),
        ]
      }
      return JSONText.object(members + [.init("key-offset", .number(slot.materialOffset))])
    }
    return .object([
      .init("format", .string("luks")), .init("uuid", .string(luks.uuid)),
      .init("cipher-alg", .string(luks.cipher.cipherName)),
      .init("cipher-mode", .string(luks.cipher.modeName)),
      .init("ivgen-alg", .string(luks.cipher.startValueName)),
      .init("hash-alg", .string(luks.hash.rawValue)),
      .init("payload-offset", .number(luks.payloadOffset)),
      .init("master-key-iters", .number(UInt64(luks.digestIterations))),
      .init("slots", .array(slots)),
    ])
  }
}
