internal import Encryption
internal import ImageDriver

extension Disk {
  /// What the header of a layer says now, nil if the layer left the chain. Reads the header.
  package func header(of id: LayerID) throws(ChainError) -> LayerHeader? {
    try withLayers { layers throws(ChainError) in
      guard let index = layers.index(of: id), let layer = layers.layer(at: index) else {
        return nil
      }
      // A layer that was opened as raw is raw, whatever its first bytes say.
      guard layer.image.formatName == "qcow2" else {
        return LayerHeader(virtualSize: layer.image.virtualSize, isEncrypted: false)
      }
      let image = try onImage { () throws(ImageError) in
        try ImageDescription(of: layer.image.storage)
      }
      return LayerHeader(image)
    }
  }
}

extension LayerHeader {
  init(_ image: ImageDescription) {
    self.init(
      virtualSize: image.virtualSize, clusterSize: image.clusterSize,
      isEncrypted: image.isEncrypted, isDirty: image.qcow2?.isDirty ?? false,
      backingName: image.backing?.name, backingFormat: image.backing?.format)
    guard let qcow2 = image.qcow2 else { return }
    specific = Self.fields(of: qcow2)
    snapshots = qcow2.snapshots.map { snapshot in
      Snapshot(
        id: snapshot.id, name: snapshot.name, vmStateSize: snapshot.vmStateSize,
        dateSeconds: snapshot.dateSeconds, guestClockNanoseconds: snapshot.guestClockNanoseconds,
        instructionCount: snapshot.instructionCount)
    }
  }

  private static func fields(of image: ImageDescription.Qcow2) -> [Field] {
    var fields = [
      Field("compat", image.version == 2 ? "0.10" : "1.1"),
      Field("compression type", image.compression),
    ]
    let isModern = image.version >= 3
    if isModern { fields.append(Field("lazy refcounts", image.hasLazyRefcounts)) }
    if !image.bitmaps.isEmpty {
      fields.append(Field("bitmaps", .list(image.bitmaps.map { .fields(Self.fields(of: $0)) })))
    }
    fields.append(Field("refcount bits", image.refcountBits))
    if let luks = image.luks { fields.append(Field("encrypt", .fields(Self.fields(of: luks)))) }
    if let name = image.dataFile {
      fields += [Field("data file", name), Field("data file raw", image.isDataFileRaw)]
    }
    if isModern {
      fields += [Field("corrupt", image.isCorrupt), Field("extended l2", image.hasExtendedL2)]
    }
    return fields
  }

  private static func fields(of bitmap: PersistentBitmap) -> [Field] {
    [
      Field("flags", .list(bitmap.flags.map { .text($0) })), Field("name", bitmap.name),
      Field("granularity", bitmap.granularity),
    ]
  }

  private static func fields(of luks: LUKSHeader) -> [Field] {
    let slots = luks.slots.map { slot in
      var fields = [Field("active", slot.isActive)]
      if slot.isActive { fields.append(Field("iters", slot.iterations)) }
      fields.append(Field("key offset", slot.materialOffset))
      if slot.isActive { fields.append(Field("stripes", slot.stripes)) }
      return Value.fields(fields)
    }
    return [
      Field("ivgen alg", luks.cipher.startValueName), Field("hash alg", luks.hash.rawValue),
      Field("cipher alg", luks.cipher.cipherName), Field("uuid", luks.uuid),
      Field("format", "luks"), Field("cipher mode", luks.cipher.modeName),
      Field("slots", .list(slots)), Field("payload offset", luks.payloadOffset),
      Field("master key iters", luks.digestIterations),
    ]
  }
}
