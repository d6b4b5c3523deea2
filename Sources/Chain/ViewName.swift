// What views are called.
//
//     INDEX-FILENAME              0-sn3.qcow2
//     INDEX-FILENAME@SNAPSHOT     0-sn3.qcow2@before%2Fupgrade
//
// Anybody may have named a snapshot anything, so its name is made one that a file can have:
//
//     a slash, a control character, `%`     %XX, as in a URL
//     no name at all                        the snapshot's id
//     over 120 bytes                        cut there, between two characters
//     the name of an earlier snapshot       ~2, ~3, ... behind it, whatever is not taken yet
//
// A file's name is fit already but for its length: no name of a view is longer than 255 bytes.

/// The names of views, by layers' places in the chain.
enum ViewName {
  private static let longest = 255
  private static let longestSnapshot = 120
  // Leaves room for the `@`, the snapshot and its number.
  private static let longestBeforeSnapshot = 126

  /// The view of a layer.
  static func layer(index: Int, fileName: String) -> String {
    cut("\(index)-\(fileName)", longest)
  }

  /// The view of a snapshot that ``SnapshotNames`` has under this name.
  static func snapshot(_ name: String, index: Int, fileName: String) -> String {
    beforeSnapshot(index: index, fileName: fileName) + name
  }

  /// The place in the chain that a name is about; nil if no view has such a name.
  static func index(in name: String) -> Int? {
    let digits = name.utf8.prefix { $0 != UInt8(ascii: "-") }
    guard let index = Int(String(decoding: digits, as: UTF8.self)), index >= 0 else { return nil }
    return index
  }

  /// What a name has behind the `@`, if it could be that of a snapshot of this layer.
  static func snapshot(in name: String, index: Int, fileName: String) -> String? {
    let start = beforeSnapshot(index: index, fileName: fileName).utf8
    guard name.utf8.starts(with: start) else { return nil }
    return String(decoding: name.utf8.dropFirst(start.count), as: UTF8.self)
  }

  private static func beforeSnapshot(index: Int, fileName: String) -> String {
    cut("\(index)-\(fileName)", longestBeforeSnapshot) + "@"
  }

  /// A snapshot's name as a part of a file's name; not yet told apart from others.
  static func made(safe name: String) -> String {
    var safe = String.UnicodeScalarView()
    for scalar in name.unicodeScalars {
      if scalar.value < 0x20 || scalar.value == 0x7f || scalar == "/" || scalar == "%" {
        let digits = String(scalar.value, radix: 16, uppercase: true)
        safe.append("%")
        if digits.count < 2 { safe.append("0") }
        safe.append(contentsOf: digits.unicodeScalars)
      } else {
        safe.append(scalar)
      }
    }
    return cut(String(safe), longestSnapshot)
  }

  /// As many whole characters as fit.
  private static func cut(_ text: String, _ most: Int) -> String {
    if text.utf8.count <= most { return text }
    var result = String.UnicodeScalarView()
    var count = 0
    for scalar in text.unicodeScalars {
      count += UTF8.width(scalar)
      if count > most { break }
      result.append(scalar)
    }
    return String(result)
  }
}
