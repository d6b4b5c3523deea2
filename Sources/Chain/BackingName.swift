internal import FoundationEssentials

// What an overlay's header may say about the image below it.
//
// The name is written by whoever made the overlay, and may be hostile: it decides which file of the
// host is opened, and how. So it is taken apart here into a small value before anything is opened,
// and whatever is not understood completely is refused with its own name in the sentence:
//
//     base.qcow2  ../base.raw  /images/base     a path; relative ones resolve from the overlay
//     file:/images/base                         the same, with QEMU's prefix for plain files
//     json:{"driver":"qcow2","file":{...}}      QEMU's options, nested or dotted, raw and qcow2 only
//     nbd://...  rbd:...  anything:...          refused: only files are opened
//
// As in QEMU a name has a protocol if a colon comes before its first slash; `./a:b` is a file.

/// A backing image as an overlay names it, taken apart and checked, but not opened.
struct BackingName: Equatable {
  /// How the bytes of the file are to be understood.
  enum Format: String, Equatable {
    case qcow2
    case raw
  }

  /// What is below the named image.
  indirect enum Below: Equatable {
    /// What its own header names.
    case asItsHeaderSays
    /// Nothing, whatever its header names (`"backing": null`).
    case nothing
    /// Another image, named in the same string.
    case image(BackingName)
  }

  /// The file, absolute or relative to the directory of the overlay.
  var path: String
  /// The format that was named, if one was.
  var format: Format?
  /// Where the chain goes on.
  var below = Below.asItsHeaderSays
}

extension BackingName {
  /// Takes apart the name and the format that an overlay's header holds.
  ///
  /// - Parameter overlay: the path of the overlay, for the sentence of a refusal.
  init(name: String, format: String?, overlay: String) throws(ChainError) {
    let named = try Self.format(format, of: name, overlay: overlay)
    let scheme = Self.scheme(of: name)
    switch scheme {
    case nil:
      self.init(path: name, format: named)
    case "file":
      self.init(path: String(name.dropFirst("file:".count)), format: named)
    case "json":
      let text = String(name.dropFirst("json:".count))
      self = try BackingOptions(json: text, name: name, overlay: overlay).backing(format: named)
    case .some(let scheme):
      throw .backingRefused(
        name: name, overlay: overlay,
        reason: "\(scheme): is not supported, only files can be backing images")
    }
    if path.isEmpty {
      throw .backingRefused(name: name, overlay: overlay, reason: "it holds no file name")
    }
  }

  /// What stands before the first colon, if no slash comes before that.
  static func scheme(of name: String) -> String? {
    guard let colon = name.firstIndex(of: ":") else { return nil }
    let scheme = name[..<colon]
    return scheme.contains("/") ? nil : String(scheme)
  }

  /// The format with this name; QEMU writes `file` for an image that it used without any format.
  static func format(
    _ format: String?, of name: String, overlay: String
  ) throws(ChainError) -> Format? {
    switch format {
    case nil, "": nil
    case "qcow2": .qcow2
    case "raw", "file": .raw
    case .some(let other):
      throw .backingRefused(
        name: name, overlay: overlay, reason: "format \(other) is not supported, only qcow2 and raw"
      )
    }
  }
}

/// The options of a `json:` name, with nested objects written as dotted keys, as QEMU reads them.
private struct BackingOptions {
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
  ]

  /// Reads the options as one image; `format` is what the overlay's header says beside the name.
  func backing(format: BackingName.Format?) throws(ChainError) -> BackingName {
    var rest = values
    var below: [String: JSONScalar] = [:]
    for (key, value) in values where key.hasPrefix("backing.") {
      below[String(key.dropFirst("backing.".count))] = value
      rest[key] = nil
    }
    let driver = try string(rest.removeValue(forKey: "driver"), "driver")
    // `{"driver":"file","filename":...}` is a file used without a format, so its bytes are raw.
    let isBare = driver == "file"
    if !isBare,
      let protocolName = try string(rest.removeValue(forKey: "file.driver"), "file.driver"),
      protocolName != "file"
    {
      throw refusal("driver \(protocolName) is not supported, only files can be backing images")
    }
    let pathKey = isBare ? "filename" : "file.filename"
    guard let path = try string(rest.removeValue(forKey: pathKey), pathKey) else {
      throw refusal("it holds no \(pathKey)")
    }
    var result = BackingName(path: path, format: format)
    if let named = try BackingName.format(driver, of: name, overlay: overlay) {
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
    if case .other("0") = rest["offset"] { rest["offset"] = nil }
    for key in rest.keys.sorted() {
      let plain = key.hasPrefix("file.") ? String(key.dropFirst("file.".count)) : key
      if !Self.harmless.contains(plain) { throw refusal("option \(key) is not supported") }
    }
    return result
  }

  private func string(_ value: JSONScalar?, _ key: String) throws(ChainError) -> String? {
    switch value {
    case nil: return nil
    case .string(let text): return text
    case .null, .other: throw refusal("option \(key) is not a string")
    }
  }
}

private enum JSONScalar: Equatable {
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
