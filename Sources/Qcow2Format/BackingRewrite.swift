// Changing the backing reference without a moment at which a crash finds neither the old nor the
// new one.
//
// Storage tears writes at 512 bytes, so the one atomic step is to write sector 0, which holds the
// offset and size of the backing file name and the start of the extensions:
//
//     sector 0                         | sector 1 ...
//     fields | extensions ...     end | old name | new name
//            '-- name offset, size ----------------^
//
//   1. preparation: what the new header refers to beyond sector 0 goes into bytes that the old
//      header does not refer to. Torn or lost, the old header reads as before.
//   2. fdatasync
//   3. flip: sector 0 is written. It is old or new, never half.
//   4. fdatasync
//
// Invariant: a byte beyond sector 0 that the old header refers to is the same before and after.
//
// Extensions are one list without gaps, so adding or dropping the format extension can shift the
// others across the sector's end, which breaks the invariant. The ways out, best first:
//
//   a. QEMU's own layout: the format changed in its place, added first, or dropped
//   b. the format added (or moved) behind all others: what was there stays where it is
//   c. a dropped format blanked in its place, which QEMU takes for none
//   d. no backing file, but its format left there: nobody looks at it
//   e. (a) without the feature name table, which only names bits in messages
//
// The name goes right after the extensions as QEMU has it, or else after the old name. Whoever
// rewrites next finds the first place free again.

/// The two steps of a change of the backing reference; between them and after them, flush.
package struct BackingRewrite: Sendable {
  /// Bytes for places that the old header does not refer to, outside of the first sector.
  package var preparation: [(offset: Int, bytes: [UInt8])]
  /// The new first sector, 512 bytes.
  package var flip: [UInt8]
}

extension ImageHeader {
  /// Plans the change of the backing reference of the header in `firstCluster`.
  ///
  /// `firstCluster` is the current content of the file, one whole cluster. A nil or empty
  /// `backingFile` means none; its format is then not needed and may stay behind. Throws
  /// `.headerFull` if there is no place for the name or the extensions.
  package static func backingRewrite(
    firstCluster: RawSpan, backingFile: String?, backingFormat: String?
  ) throws(FormatError) -> BackingRewrite {
    let (header, layout) = try parseWithLayout(firstCluster)
    let name = try backingNameBytes(backingFile)
    let clusterSize = header.geometry.clusterSize
    let old = OldHeader(bytes: BigEndian.copy(firstCluster, 0..<clusterSize), layout: layout)
    let format = name.isEmpty ? nil : backingFormat
    var smallest = Int.max
    for extensions in header.extensionChoices(format: format, hasBackingFile: !name.isEmpty) {
      let end = try extensionsEnd(header.headerLength, extensions)
      smallest = min(smallest, end + name.count)
      for place in old.namePlaces(from: end) where place + name.count <= clusterSize {
        var bytes = [UInt8](repeating: 0, count: clusterSize)
        bytes.replaceSubrange(0..<header.headerLength, with: old.bytes.prefix(header.headerLength))
        encodeExtensions(extensions, into: &bytes, at: header.headerLength)
        encodeBackingName(name, into: &bytes, at: place)
        let used = [header.headerLength..<end, place..<place + name.count]
        if let rewrite = old.rewrite(to: bytes, using: used) { return rewrite }
      }
    }
    throw .headerFull(needed: smallest, available: clusterSize)
  }

  /// The extensions to try, best first.
  private func extensionChoices(
    format: String?, hasBackingFile: Bool
  ) -> [[HeaderExtension]] {
    var inPlace = self
    inPlace.backingFormat = format
    var choices = [inPlace.extensions]
    if let format {
      let others = extensions.filter { $0.type != HeaderExtension.backingFormatType }
      choices.append(
        others + [
          HeaderExtension(type: HeaderExtension.backingFormatType, data: Array(format.utf8))
        ])
    } else {
      choices.append(
        extensions.map { item in
          guard item.type == HeaderExtension.backingFormatType else { return item }
          let blank = [UInt8](repeating: 0, count: item.data.count)
          return HeaderExtension(type: item.type, data: blank)
        })
      if !hasBackingFile { choices.append(extensions) }
    }
    choices.append(
      inPlace.extensions.filter { $0.type != HeaderExtension.featureNamesType })
    return choices
  }
}

/// The header that has to survive until the flip.
private struct OldHeader {
  let bytes: [UInt8]
  let layout: HeaderLayout

  static let sectorSize = 512

  /// Where a new name may start if its extensions end at `end`, best first.
  func namePlaces(from end: Int) -> [Int] {
    [end, layout.extensionsEnd, layout.backingName.upperBound]
      .map { max(end, ($0 + 7) & ~7) }
  }

  private func refers(to offset: Int) -> Bool {
    offset < layout.extensionsEnd || layout.backingName.contains(offset)
  }

  /// The steps to `new`, of which only the ranges in `used` matter; nil if they break the
  /// invariant.
  func rewrite(to new: [UInt8], using used: [Range<Int>]) -> BackingRewrite? {
    var preparation: [(offset: Int, bytes: [UInt8])] = []
    for range in used {
      var run = max(range.lowerBound, OldHeader.sectorSize)
      while run < range.upperBound {
        if refers(to: run) {
          guard new[run] == bytes[run] else { return nil }
          run += 1
          continue
        }
        let end = (run..<range.upperBound).first(where: refers) ?? range.upperBound
        preparation.append((run, Array(new[run..<end])))
        run = end
      }
    }
    return BackingRewrite(
      preparation: preparation, flip: Array(new[..<OldHeader.sectorSize]))
  }
}
