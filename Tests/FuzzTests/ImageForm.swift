import HostSystem
import TestSupport

@testable import Encryption
@testable import ImageDriver
@testable import Qcow2Format

/// An image as QEMU made it, with the places of its metadata.
struct ImageForm: Sendable {
  var name: String
  var content: SparseBytes
  /// Header, tables, directories: each with its first byte and its length.
  var regions: [Range<UInt64>] = []

  static let path = "/images/top.qcow2"

  /// All forms that the corpus has.
  static let all: [ImageForm] = {
    do {
      return try Corpus.inputs(in: "images").map {
        try ImageForm(name: $0.name, content: PackedImage.unpack($0.bytes))
      }
    } catch { preconditionFailure("the corpus has no images: \(error)") }
  }()

  /// A directory with the image and what it names: its base, its data file.
  func files(_ content: SparseBytes) -> FuzzFiles {
    let files = FuzzFiles()
    files.put(Self.path, content)
    files.put("/images/base.raw", Self.base)
    files.put("/images/data.raw", Self.base)
    files.put("/images/rawdata.raw", Self.base)
    if name == "deep", let below = Self.all.first(where: { $0.name == "v3" }) {
      files.put("/images/v3.qcow2", below.content)
    }
    return files
  }

  private static let base: SparseBytes = {
    var content = SparseBytes()
    content.put((0..<48 << 10).map { UInt8(truncatingIfNeeded: $0 / 512 * 7 + 3) }, at: 0)
    return content
  }()

  private init(name: String, content: SparseBytes) throws {
    self.name = name
    self.content = content
    let storage = MemoryStorage(content: content)
    let header = try ImageHeader.read(from: storage)
    let cluster = UInt64(header.geometry.clusterSize)
    func add(_ start: UInt64, _ length: UInt64) { regions.append(start..<start + length) }
    add(0, 112)
    add(UInt64(header.headerLength), min(400, cluster - UInt64(header.headerLength)))
    try addTables(header, header.l1TableOffset, header.l1Size, storage)
    let refcounts = UInt64(header.refcountTableClusters) * cluster
    add(header.refcountTableOffset, refcounts)
    for entry in try storage.readEntries(Int(refcounts / 8), at: header.refcountTableOffset)
    where entry != 0 { add(entry, cluster) }
    let snapshots = try header.snapshots(in: storage)
    if !snapshots.isEmpty {
      add(header.snapshotsOffset, snapshots.reduce(0) { $0 + UInt64($1.encodedByteCount) })
    }
    for entry in snapshots { try addTables(header, entry.l1TableOffset, entry.l1Size, storage) }
    if let bitmaps = try BitmapDirectory(of: header, in: storage) {
      add(bitmaps.place.offset, UInt64(bitmaps.place.byteCount))
      for entry in bitmaps.entries { add(entry.tableOffset, UInt64(entry.tableSize) * 8) }
    }
    if let area = header.encryptionHeader {
      add(area.offset, UInt64(LUKSHeader.byteCount))
      try unlock(area, storage)
    }
  }

  private mutating func addTables(
    _ header: ImageHeader, _ offset: UInt64, _ count: Int, _ storage: MemoryStorage
  ) throws {
    if count > 0 { regions.append(offset..<offset + UInt64(count) * 8) }
    for entry in try storage.readEntries(count, at: offset) {
      let table = L1Entry(rawValue: entry).tableOffset
      if table != 0 { regions.append(table..<table + UInt64(header.geometry.clusterSize)) }
    }
  }

  // MARK: - Encryption

  /// What opens the encrypted form.
  static var secret: SecretBytes {
    var bytes = Array("fuzz".utf8)
    return SecretBytes(taking: &bytes)
  }

  /// Gives the LUKS header a key that costs nothing to find: the corpus has no key material.
  private mutating func unlock(_ area: FileArea, _ storage: MemoryStorage) throws {
    var bytes = try storage.bytes(at: area.offset, count: LUKSHeader.byteCount)
    for place in [164, 208 + 4] { BigEndian.store(UInt32(1), in: &bytes, at: place) }
    let header = try LUKSHeader(parsing: bytes, areaByteCount: area.byteCount)
    let key = [UInt8](repeating: 0, count: header.keyByteCount - 1) + [1]
    // Of stripes that are all zero but the last, that is what the others are merged to, and the key.
    var material = [UInt8](repeating: 0, count: header.materialByteCount)
    let merged = header.merge(material).withBytes { $0.copied() }
    let last = (LUKSHeader.stripes - 1) * header.keyByteCount
    for index in key.indices { material[last + index] = merged[index] ^ key[index] }
    let slot = header.slots[0]
    let (hash, count) = (header.hash, header.keyByteCount)
    let slotKey = Self.secret.withBytes {
      Crypto.derive(from: $0, salt: slot.salt, iterations: 1, hash: hash, byteCount: count)
    }
    if let cipher = SectorCipher(header.cipher, key: slotKey) {
      var span = material.mutableRawSpan
      cipher.encrypt(&span, firstSector: 0)
    }
    let digest = Crypto.derive(
      from: key.rawSpan, salt: header.digestSalt, iterations: 1, hash: hash, byteCount: 20
    ).withBytes { $0.copied() }
    bytes.replaceSubrange(112..<132, with: digest)
    content.put(bytes, at: area.offset)
    content.put(material, at: area.offset + slot.materialOffset)
  }
}
