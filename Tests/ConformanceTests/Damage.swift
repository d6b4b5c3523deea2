import TestSupport
import Testing

/// Damage of one kind at a place where it means something.
struct Damage: Sendable {
  var name: String
  var form: DamagedForm
  /// After a repair of all, nothing is left.
  var isMendable = true
  var change: @Sendable (inout ImageBytes) -> Void

  static func on(
    _ form: DamagedForm, _ name: String, stays: Bool = false,
    _ change: @escaping @Sendable (inout ImageBytes) -> Void
  ) -> Damage {
    Damage(name: name, form: form, isMendable: !stays, change: change)
  }

  static let entries: [Damage] = [
    .on(.plain, "two entries name one cluster") { image in
      let places = image.dataEntries
      image.set(places[1], image.number(places[0]))
    },
    .on(.bits1, "two entries name one cluster, refcounts of one bit", stays: true) {
      image in
      let places = image.dataEntries
      image.set(places[1], image.number(places[0]))
    },
    .on(.plain, "an entry names its own table", stays: true) { image in
      image.set(image.dataEntries[0], UInt64(image.l2Table) | 1 << 63)
    },
    .on(.plain, "an entry names the L1 table") { image in
      image.set(image.dataEntries[0], UInt64(image.l1Table) | 1 << 63)
    },
    .on(.plain, "an entry names a refcount block") { image in
      image.set(image.dataEntries[0], UInt64(image.block) | 1 << 63)
    },
    .on(.plain, "an entry names the refcount table") { image in
      image.set(image.dataEntries[0], UInt64(image.refcountTable) | 1 << 63)
    },
    .on(.plain, "data is not aligned", stays: true) { $0.change($0.dataEntries[0]) { $0 + 512 } },
    .on(.plain, "data lies behind the file", stays: true) { image in
      image.change(image.dataEntries[0]) { $0 | 1 << 45 }
    },
    .on(.plain, "data lies right behind the file", stays: true) { image in
      let end = UInt64((image.bytes.count + 4095) & ~4095)
      image.set(image.dataEntries[0], end | 1 << 63)
    },
    .on(.plain, "reserved bits of an L2 entry") {
      $0.change($0.dataEntries[0]) { $0 | 4 | 1 << 58 }
    },
    .on(.plain, "a zero cluster keeps a home that is not aligned") { image in
      image.change(image.dataEntries[0]) { $0 + 512 | 1 }
    },
    .on(.plain, "marks that are missing") { image in
      for place in image.dataEntries { image.change(place) { $0 & ~(1 << 63) } }
    },
    .on(.plain, "marks where there are others") { image in
      for place in image.entries(where: { $0 >> 62 == 0 && $0 & ~1 != 0 }) {
        image.change(place) { $0 | 1 << 63 }
      }
    },
    .on(.preallocated, "homes of zero clusters are forgotten") { image in
      for place in image.entries(where: { $0 & 1 == 1 }).prefix(5) { image.set(place, 1) }
    },
    .on(.compressed, "a compressed cluster is marked") { image in
      image.change(image.compressedEntries[0]) { $0 | 1 << 63 }
    },
    .on(.compressed, "a compressed cluster lies behind the file", stays: true) { image in
      image.change(image.compressedEntries[1]) { $0 | 1 << 40 }
    },
    .on(.compressed, "a compressed cluster starts elsewhere") { image in
      image.change(image.compressedEntries[2]) { $0 + 4096 }
    },
    .on(.subclusters, "a subcluster is allocated and zero", stays: true) { image in
      image.change(image.dataEntries[0] + 8) { $0 | 1 << 32 | 1 }
    },
    .on(.subclusters, "subclusters are allocated nowhere", stays: true) { image in
      image.set(image.dataEntries[0], 0)
    },
    .on(.subclusters, "a cluster without data is not aligned") { image in
      let place = image.dataEntries[0]
      image.change(place) { $0 + 512 }
      image.change(place + 8) { $0 & ~0xffff_ffff }
    },
    .on(.subclusters, "data with subclusters is not aligned", stays: true) { image in
      image.change(image.dataEntries[0]) { $0 + 512 }
    },
    .on(.subclusters, "bit 0 of an extended entry") { $0.change($0.dataEntries[0]) { $0 | 1 } },
    .on(.compressedSubclusters, "a compressed cluster has a bitmap") { image in
      image.set(image.compressedEntries[0] + 8, 5)
    },
    .on(.dataFile, "marks of a data file are missing") { image in
      for place in image.dataEntries { image.change(place) { $0 & ~(1 << 63) } }
    },
    .on(.dataFile, "a compressed cluster with a data file", stays: true) { image in
      image.change(image.dataEntries[1]) { $0 | 1 << 62 }
    },
    .on(.dataFile, "two entries name one place of a data file") { image in
      image.set(image.dataEntries[1], image.number(image.dataEntries[0]))
    },
    .on(DamagedForm.all[0], "the zero flag in version 2") { image in
      image.change(image.dataEntries[0]) { $0 | 1 }
    },
  ]

  static let tables: [Damage] = [
    .on(.plain, "an L1 entry is only a mark") { image in
      image.set(image.l1Table + image.l1Size * 8 - 8, 1 << 63)
    },
    .on(.plain, "reserved bits of an L1 entry") { $0.change($0.l1Table) { $0 | 2 | 1 << 60 } },
    .on(.plain, "an L2 table is not aligned", stays: true) { $0.change($0.l1Table) { $0 + 512 } },
    .on(.plain, "an L2 table lies behind the file", stays: true) { image in
      image.change(image.l1Table) { $0 | 1 << 44 }
    },
    .on(.plain, "an L2 table is guest data", stays: true) { image in
      let data = image.number(image.l2Table + 256 * 8)
      image.set(image.l1Table, data & ImageBytes.offsetMask | 1 << 63)
    },
    .on(.plain, "an L2 table is forgotten") { $0.set($0.l1Table, 0) },
    .on(.plain, "two L1 entries name one table") { image in
      image.set(image.l1Table + 8, image.number(image.l1Table))
    },
    .on(.plain, "a snapshot's table is not aligned", stays: true) { image in
      image.change(image.snapshots) { $0 + 512 }
    },
    .on(.plain, "a snapshot's table lies behind the file", stays: true) { image in
      image.change(image.snapshots) { $0 + 1 << 40 }
    },
    .on(.plain, "a snapshot's table is too large", stays: true) { image in
      image.set(image.snapshots + 8, 5 << 20, 4)
    },
    .on(.plain, "a snapshot's table is the active one", stays: true) { image in
      image.set(image.snapshots, UInt64(image.l1Table))
    },
    .on(.plain, "snapshots lie behind the file", stays: true) { $0.set(64, 1 << 40) },
    .on(.plain, "a snapshot has too much extra data", stays: true) { image in
      image.set(image.snapshots + 36, 2000, 4)
    },
    .on(.plain, "snapshots are forgotten") { $0.set(60, 0, 4) },
  ]

  static let refcounts: [Damage] = [
    .on(.plain, "a refcount is zero") { image in
      let cluster = image.number(image.dataEntries[0]) & ImageBytes.offsetMask
      image.setRefcount(Int(cluster) / image.clusterSize, 0)
    },
    .on(.plain, "refcounts are too high") { image in
      for cluster in 3..<12 { image.setRefcount(cluster, 9) }
    },
    .on(.plain, "all refcounts are zero") { image in
      for cluster in 0..<image.clusterSize / 2 { image.setRefcount(cluster, 0) }
    },
    .on(.bits1, "all refcounts are one") { image in
      for cluster in 0..<image.clusterSize * 8 { image.setRefcount(cluster, 1) }
    },
    .on(DamagedForm.all[6], "refcounts of 64 bits are huge") { image in
      for cluster in 4..<20 { image.setRefcount(cluster, .max - UInt64(cluster)) }
    },
    .on(.plain, "no refcount block") { $0.set($0.refcountTable, 0) },
    .on(.plain, "a refcount block is not aligned") { image in
      image.change(image.refcountTable) { $0 + 512 }
    },
    .on(.plain, "a refcount block lies behind the file") { image in
      image.set(image.refcountTable + 8, 1 << 30)
    },
    .on(.plain, "a refcount block lies where no file reaches") { image in
      image.set(image.refcountTable, UInt64(1) << 63)
    },
    .on(.plain, "reserved bits of the refcount table") { image in
      image.change(image.refcountTable) { $0 | 1 }
    },
    .on(.plain, "one refcount block twice") { image in
      image.set(image.refcountTable + 8, image.number(image.refcountTable))
    },
    .on(.plain, "a refcount block is guest data") { image in
      image.set(image.refcountTable, image.number(image.dataEntries[0]) & ImageBytes.offsetMask)
    },
    .on(.plain, "the refcount table lies behind the file") { $0.set(48, 1 << 40) },
    .on(.plain, "the refcount table is guest data") { image in
      image.set(48, image.number(image.dataEntries[0]) & ImageBytes.offsetMask)
    },
    .on(.plain, "marked corrupt") { $0.change(72) { $0 | 2 } },
    .on(.plain, "marked dirty") { $0.change(72) { $0 | 1 } },
    .on(.bitmaps, "the directory of bitmaps is garbage") { image in
      image.set(image.bitmapDirectory, .max)
    },
    .on(.bitmaps, "a table of a bitmap is garbage") { image in
      image.set(Int(image.number(image.bitmapDirectory)), 0xff)
    },
    .on(.bitmaps, "bitmaps are forgotten") { $0.set(88, 0) },
  ]

  static let all = entries + tables + refcounts
}

extension Damage: CustomTestStringConvertible {
  var testDescription: String { "\(form.name): \(name)" }
}
