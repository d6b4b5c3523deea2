internal import Control
internal import ImageDriver

// The options of a new image, in qemu-img's words: `-o cluster_size=4k,extended_l2=on`. A comma in a
// value is doubled. What has a flag of its own may be given either way, but only once.

/// `key=value` options of `chainfs create`.
struct CreateOptions {
  /// The keys that are known.
  enum Key: String, CaseIterable {
    case size, compat, preallocation
    case clusterSize = "cluster_size"
    case refcountBits = "refcount_bits"
    case lazyRefcounts = "lazy_refcounts"
    case extendedL2 = "extended_l2"
    case compressionType = "compression_type"
    case backingFile = "backing_file"
    case backingFormat = "backing_fmt"
  }

  private var values: [Key: String] = [:]

  /// Reads the words behind `-o`.
  init(_ words: [String]) throws(CommandFailure) {
    for word in words {
      for part in Self.parts(of: word) where !part.isEmpty {
        let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard let key = Key(rawValue: String(pair[0])) else {
          let known = Key.allCases.map(\.rawValue).sorted().joined(separator: ", ")
          throw CommandFailure(
            "there is no option '\(pair[0])' for a new image (there are \(known))")
        }
        try set(key, pair.count == 2 ? String(pair[1]) : "on")
      }
    }
  }

  /// Gives an option its value, unless it has one.
  mutating func set(_ key: Key, _ value: String?) throws(CommandFailure) {
    guard let value else { return }
    if values.updateValue(value, forKey: key) != nil {
      throw CommandFailure("\(key.rawValue) is given twice")
    }
  }

  /// The text of an option, nil if it is not given.
  subscript(_ key: Key) -> String? { values[key] }

  /// An option that is a size, nil if it is not given.
  func size(_ key: Key) throws(CommandFailure) -> UInt64? {
    guard let text = values[key] else { return nil }
    guard let bytes = SizeText.bytes(text) else {
      throw CommandFailure("\(key.rawValue)=\(text) is not a size (bytes, or K, M, G, T)")
    }
    return bytes
  }

  /// What the options say of a new image, checked by QEMU's rules.
  func image(
    virtualSize: UInt64, backing: BackingReference?
  ) throws(CommandFailure) -> ImageBuilder.Options {
    var image = ImageBuilder.Options(virtualSize: virtualSize, backing: backing)
    switch values[.compat] {
    case nil, "1.1", "v3": break
    case "0.10", "v2": image.version = 2
    case let other?: throw CommandFailure("compat is 0.10, 1.1, v2 or v3, not '\(other)'")
    }
    if let bytes = try size(.clusterSize) {
      guard bytes.nonzeroBitCount == 1, (512...2 << 20).contains(bytes) else {
        throw CommandFailure("cluster_size is a power of two from 512 to 2M")
      }
      image.clusterSize = Int(bytes)
    }
    if let text = values[.refcountBits] {
      guard let bits = Int(text), bits.nonzeroBitCount == 1, (1...64).contains(bits) else {
        throw CommandFailure("refcount_bits is a power of two from 1 to 64")
      }
      image.refcountBits = bits
    }
    image.hasLazyRefcounts = try flag(.lazyRefcounts)
    image.hasExtendedL2 = try flag(.extendedL2)
    image.compression = try choice(.compressionType) ?? .zlib
    image.preallocation = try choice(.preallocation) ?? .off
    try check(image)
    return image
  }

  // MARK: - Parts

  private func check(_ image: ImageBuilder.Options) throws(CommandFailure) {
    if image.version == 2 {
      let asked = [
        (Key.lazyRefcounts, image.hasLazyRefcounts), (.extendedL2, image.hasExtendedL2),
        (.compressionType, image.compression != .zlib),
        (.refcountBits, image.refcountBits != 16),
      ]
      for (key, isAsked) in asked where isAsked {
        throw CommandFailure("\(key.rawValue)=\(values[key] ?? "") needs version 3 (compat=1.1)")
      }
    }
    if image.hasExtendedL2, image.clusterSize < 16 << 10 {
      throw CommandFailure("extended_l2 needs clusters of at least 16K")
    }
    if image.preallocation != .off, image.backing != nil, !image.hasExtendedL2 {
      throw CommandFailure("preallocation over a backing file needs extended_l2=on")
    }
  }

  private enum Switch: String, CaseIterable {
    case on, off
  }

  private func flag(_ key: Key) throws(CommandFailure) -> Bool {
    let value: Switch? = try choice(key)
    return value == .on
  }

  private func choice<Value: RawRepresentable<String> & CaseIterable>(
    _ key: Key
  ) throws(CommandFailure) -> Value? {
    guard let text = values[key] else { return nil }
    guard let value = Value(rawValue: text) else {
      let known = Value.allCases.map(\.rawValue).joined(separator: ", ")
      throw CommandFailure("\(key.rawValue) is one of \(known), not '\(text)'")
    }
    return value
  }

  /// Splits at commas, of which two stand for one.
  private static func parts(of word: String) -> [String] {
    var parts = [""]
    var isComma = false
    for character in word {
      if isComma {
        if character == "," {
          parts[parts.count - 1] += ","
          isComma = false
          continue
        }
        parts.append("")
        isComma = false
      }
      if character == "," { isComma = true } else { parts[parts.count - 1].append(character) }
    }
    return parts
  }
}
