// The way back: a name that leads to the same image by another path. What a path alone cannot say, a
// window of a file or another image below, takes QEMU's `json:` form.

extension BackingName {
  /// The string for this image in a header, with `path` as its file.
  func spelled(path: String) -> String {
    if windows.isEmpty, below == .asItsHeaderSays { return path }
    return "json:" + JSONObject(node(path: path)).text
  }

  private func node(path: String) -> [(String, JSONObject.Value)] {
    var file: [(String, JSONObject.Value)] = [
      ("driver", .string("file")), ("filename", .string(path)),
    ]
    var outer = windows[...]
    // A raw image is itself the node that shows the last window.
    let own = format == .raw ? outer.popLast() : nil
    for window in outer { file = Self.rawNode(window, over: file) }
    var members: [(String, JSONObject.Value)]
    if let own {
      members = Self.rawNode(own, over: file)
    } else {
      members = format.map { [("driver", .string($0.rawValue))] } ?? []
      members.append(("file", .object(JSONObject(file))))
    }
    switch below {
    case .asItsHeaderSays: break
    case .nothing: members.append(("backing", .null))
    case .image(let image):
      members.append(("backing", .object(JSONObject(image.node(path: image.path)))))
    }
    return members
  }

  private static func rawNode(
    _ window: Window, over file: [(String, JSONObject.Value)]
  ) -> [(String, JSONObject.Value)] {
    var members: [(String, JSONObject.Value)] = [
      ("driver", .string("raw")), ("offset", .number(window.offset)),
    ]
    if let size = window.size { members.append(("size", .number(size))) }
    return members + [("file", .object(JSONObject(file)))]
  }
}

/// JSON as a header holds it: one line without blanks.
private struct JSONObject {
  indirect enum Value {
    case string(String)
    case number(UInt64)
    case null
    case object(JSONObject)
  }

  var members: [(String, Value)]

  init(_ members: [(String, Value)]) { self.members = members }

  var text: String {
    "{" + members.map { "\(Self.quoted($0)):\(Self.text(of: $1))" }.joined(separator: ",") + "}"
  }

  private static func text(of value: Value) -> String {
    switch value {
    case .string(let string): quoted(string)
    case .number(let number): String(number)
    case .null: "null"
    case .object(let object): object.text
    }
  }

  private static func quoted(_ string: String) -> String {
    var result = "\""
    for scalar in string.unicodeScalars {
      switch scalar {
      case "\"", "\\": result += "\\\(scalar)"
      case _ where scalar.value < 0x20:
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}
