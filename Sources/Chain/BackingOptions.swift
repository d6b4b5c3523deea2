internal import FoundationEssentials

/// The options of a `json:` name, with nested objects written as dotted keys, as QEMU reads them.
struct BackingOptions {
  var values: [String: JSONScalar] = [:]
  var name: String
  var overlay: String

  init(json: String, name: String, overlay: String) throws(ChainError) {
    self.name = name
    self.overlay = overlay
    let tree: JSONTree
    do {
      tree = try JSONDecoder().decode(JSONTree.self, from: Data(json.utf8))
    } catch {
      throw .backingRefused(name: name, overlay: overlay, reason: "it is not valid JSON")
    }
    guard case .object(let members) = tree else {
      throw .backingRefused(name: name, overlay: overlay, reason: "it is not a JSON object")
    }
    try flatten(members, prefix: "", depth: 0)
  }

  private init(values: [String: JSONScalar], name: String, overlay: String) {
    self.values = values
    self.name = name
    self.overlay = overlay
  }

  private mutating func flatten(
    _ members: [String: JSONTree], prefix: String, depth: Int
  ) throws(ChainError) {
    // A name has at most 1023 bytes; the bound is for the stack, not for any real chain.
    if depth > 64 { throw refusal("it is nested too deeply") }
    for (key, value) in members {
      let full = prefix + key
      switch value {
      case .object(let inner): try flatten(inner, prefix: full + ".", depth: depth + 1)
      case .array: throw refusal("option \(full) is not supported")
      case .scalar(let scalar):
        if values.updateValue(scalar, forKey: full) != nil {
          throw refusal("option \(full) is given twice")
        }
      }
    }
  }

  private func refusal(_ reason: String) -> ChainError {
    .backingRefused(name: name, overlay: overlay, reason: reason)
  }

  // Options of QEMU that choose caching, locking or names for management and never change a byte.
  private static let harmless: Set<String> = [
    "node-name", "read-only", "auto-read-only", "force-share", "discard", "detect-zeroes",
    "cache.direct", "cache.no-flush", "locking", "aio", "lazy-refcounts", "cache-size",
    "l2-cache-size", "refcount-cache-size", "cache-clean-interval", "pass-discard-request",
    "pass-discard-snapshot", "pass-discard-other", "overlap-check",
    // The name of a secret in QEMU's process; here it is the mount that has the secret.
    "encrypt.format", "encrypt.key-secret",
  ]

  /// Reads the options as one image; `format` is what the overlay's header says beside the name.
  func backing(format: BackingName.Format?) throws(ChainError) -> BackingName {
    var rest = values
    var below: [String: JSONScalar] = [:]
    for (key, value) in values where key.hasPrefix("backing.") {
      below[String(key.dropFirst("backing.".count))] = value
      rest[key] = nil
    }
    let driver = try takeString(&rest, "driver")
    // `{"driver":"file","filename":...}` is a file used without a format, so its bytes are raw.
    let isBare = driver == "file"
    let isRaw = driver == "raw" || driver == nil && format == .raw
    var windows = isRaw ? try takeWindow(&rest, prefix: "") : []
    let path = try takeFile(&rest, prefix: isBare ? "" : "file.", isBare: isBare, &windows)
    var result = BackingName(path: path, format: format, windows: windows)
    if let named = try BackingName.format(driver, of: path, overlay: overlay) {
      if let format, format != named {
        throw refusal("its driver \(named.rawValue) contradicts the format \(format.rawValue)")
      }
      result.format = named
    }
    switch rest.removeValue(forKey: "backing") {
    case nil: break
    case .null: result.below = .nothing
    case .string, .other: throw refusal("option backing is not supported in this form")
    }
    if !below.isEmpty {
      let options = BackingOptions(values: below, name: name, overlay: overlay)
      result.below = .image(try options.backing(format: nil))
    }
    for key in rest.keys.sorted() {
      var plain = key[...]
      while plain.hasPrefix("file.") { plain = plain.dropFirst("file.".count) }
      if !Self.harmless.contains(String(plain)) {
        throw refusal("option \(key) is not supported")
      }
    }
    return result
  }

  /// The path of the file at the bottom; raw nodes on the way add their windows in front.
  private func takeFile(
    _ rest: inout [String: JSONScalar], prefix: String, isBare: Bool,
    _ windows: inout [BackingName.Window]
  ) throws(ChainError) -> String {
    var prefix = prefix
    // Every round but the last takes a driver out of the options.
    while !isBare, let driver = try takeString(&rest, prefix + "driver") {
      if driver == "file" || driver == "host_device" { break }
      guard driver == "raw" else {
        throw refusal("driver \(driver) is not supported, only files can be backing images")
      }
      windows = try takeWindow(&rest, prefix: prefix) + windows
      prefix += "file."
    }
    let key = prefix + "filename"
    guard let path = try takeString(&rest, key) else { throw refusal("it holds no \(key)") }
    return path
  }

  /// The window that a raw node shows, none if that is its whole file.
  private func takeWindow(
    _ rest: inout [String: JSONScalar], prefix: String
  ) throws(ChainError) -> [BackingName.Window] {
    let offset = try size(rest.removeValue(forKey: prefix + "offset"), prefix + "offset")
    let length = try size(rest.removeValue(forKey: prefix + "size"), prefix + "size")
    if let length, !length.isMultiple(of: 512) {
      throw refusal("its size \(length) is not a multiple of 512")
    }
    if offset ?? 0 == 0, length == nil { return [] }
    return [BackingName.Window(offset: offset ?? 0, size: length)]
  }

  /// A number of bytes: a JSON number, or a string as QEMU reads sizes, without fractions.
  private func size(_ value: JSONScalar?, _ key: String) throws(ChainError) -> UInt64? {
    let text: String
    switch value {
    case nil: return nil
    case .string(let string), .other(let string): text = string
    case .null: throw refusal("option \(key) is no size")
    }
    let suffix = text.last.flatMap { "kmgtpe".firstIndex(of: Character($0.lowercased())) }
    let shift = suffix.map { ("kmgtpe".distance(from: "kmgtpe".startIndex, to: $0) + 1) * 10 } ?? 0
    let digits = shift == 0 ? text[...] : text.dropLast()
    guard let number = UInt64(digits), digits.first != "+",
      number <= UInt64(Int64.max) >> UInt64(shift)
    else { throw refusal("option \(key) is \(text), which is no size in bytes") }
    return number << UInt64(shift)
  }

  private func takeString(
    _ rest: inout [String: JSONScalar], _ key: String
  ) throws(ChainError) -> String? {
    switch rest.removeValue(forKey: key) {
    case nil: return nil
    case .string(let text): return text
    case .null, .other: throw refusal("option \(key) is not a string")
    }
  }
}

enum JSONScalar: Equatable {
  case string(String)
  case null
  case other(String)
}

private enum JSONTree: Decodable {
  case object([String: JSONTree])
  case array
  case scalar(JSONScalar)

  init(from decoder: any Decoder) throws {
    if let members = try Self.attempt({ try [String: JSONTree](from: decoder) }) {
      self = .object(members)
      return
    }
    if try Self.attempt({ try decoder.unkeyedContainer() }) != nil {
      self = .array
      return
    }
    let value = try decoder.singleValueContainer()
    if value.decodeNil() {
      self = .scalar(.null)
    } else if let text = try Self.attempt({ try value.decode(String.self) }) {
      self = .scalar(.string(text))
    } else if let flag = try Self.attempt({ try value.decode(Bool.self) }) {
      self = .scalar(.other(flag ? "true" : "false"))
    } else {
      self = .scalar(.other(String(try value.decode(Int64.self))))
    }
  }

  /// The value, or nil if the JSON holds another type here; anything else is bad JSON.
  private static func attempt<Value>(_ read: () throws -> Value) throws -> Value? {
    do {
      return try read()
    } catch DecodingError.typeMismatch {
      return nil
    } catch DecodingError.valueNotFound {
      return nil
    }
  }
}
