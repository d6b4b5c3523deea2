// What QEMU reads in a persistent bitmap: it exports the bitmap over NBD and maps the export.

import Foundation

/// A persistent bitmap of an image as QEMU sees it.
package enum DirtyBitmap {
  /// The dirty runs of the disk, in order and merged; throws if QEMU does not load the bitmap.
  package static func ranges(of path: String, name: String) throws -> [Range<UInt64>] {
    let place = try TemporaryDirectory()
    let socket = place.file("nbd")
    let script = """
      qemu-nbd -r -f qcow2 -B '\(name)' -k \(socket) '\(path)' & server=$!
      # The socket is there before anybody listens.
      until qemu-img map --output=json --image-opts \
        driver=nbd,server.type=unix,server.path=\(socket),x-dirty-bitmap=qemu:dirty-bitmap:\(name)
      do kill -0 $server || exit 9; sleep 0.02; done
      wait $server
      """
    let text = try runSuccessfully("bash", "-ec", script)
    let object = try JSONSerialization.jsonObject(with: Data(text.utf8))
    guard let extents = object as? [[String: Any]] else {
      throw CommandFailure(description: "qemu-img map printed \(text)")
    }
    var ranges: [Range<UInt64>] = []
    for extent in extents where extent["data"] as? Bool == false {
      let start = (extent["start"] as? NSNumber)?.uint64Value ?? 0
      let end = start + ((extent["length"] as? NSNumber)?.uint64Value ?? 0)
      if let last = ranges.last, last.upperBound == start {
        ranges[ranges.count - 1] = last.lowerBound..<end
      } else {
        ranges.append(start..<end)
      }
    }
    return ranges
  }

  /// The names of the bitmaps with their flags, as `qemu-img info` has them.
  package static func flags(of path: String) throws -> [String: [String]] {
    let text = try runSuccessfully("qemu-img", "info", "-U", "--output=json", path)
    let object = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
    let specific = object?["format-specific"] as? [String: Any]
    let data = specific?["data"] as? [String: Any]
    var flags: [String: [String]] = [:]
    for bitmap in data?["bitmaps"] as? [[String: Any]] ?? [] {
      flags[bitmap["name"] as? String ?? ""] = bitmap["flags"] as? [String] ?? []
    }
    return flags
  }
}

/// Which granules of a disk were touched.
package struct DirtyModel: Sendable, Equatable {
  /// The bytes of the disk that share a bit.
  package let granularity: UInt64
  /// The size of the disk.
  package var size: UInt64
  private var granules: Set<UInt64> = []

  /// Nothing is touched.
  package init(granularity: UInt64, size: UInt64) {
    self.granularity = granularity
    self.size = size
  }

  /// Touches a range that is not empty.
  package mutating func touch(_ offset: UInt64, _ length: UInt64) {
    granules.formUnion(offset / granularity...(offset + length - 1) / granularity)
  }

  /// The touched granule of an index.
  package func isTouched(_ granule: UInt64) -> Bool { granules.contains(granule) }

  /// The touched runs of the disk, in order and merged.
  package var ranges: [Range<UInt64>] {
    var ranges: [Range<UInt64>] = []
    for granule in granules.sorted() {
      let start = granule * granularity
      let end = min(start + granularity, size)
      if let last = ranges.last, last.upperBound == start {
        ranges[ranges.count - 1] = last.lowerBound..<end
      } else {
        ranges.append(start..<end)
      }
    }
    return ranges
  }
}
