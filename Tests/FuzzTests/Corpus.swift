import FoundationEssentials

// The corpus is text, so that a change of it can be read: a file for each target, and on each line the
// name of an input and its bytes in base 64. A name tells what the input once broke; a seed's name is
// a number or the image that it is about. Inputs name images by their place in `images`, so new ones go
// to its end.

/// An input that is kept.
struct CorpusInput: Sendable, CustomStringConvertible {
  var name: String
  var bytes: [UInt8]
  var description: String { name }
}

enum Corpus {
  private struct Malformed: Error {
    var line: String
  }

  /// The inputs of a target.
  static func inputs(of target: FuzzTarget) throws -> [CorpusInput] {
    try inputs(in: target.rawValue)
  }

  /// The inputs of a file of the corpus.
  static func inputs(in file: String) throws -> [CorpusInput] {
    let text = try String(contentsOfFile: "\(directory)/\(file)", encoding: .utf8)
    return try text.split(separator: "\n").map { line in
      let words = line.split(separator: " ")
      guard words.count == 2, let bytes = Data(base64Encoded: String(words[1])) else {
        throw Malformed(line: String(line))
      }
      return CorpusInput(name: String(words[0]), bytes: Array(bytes))
    }
  }

  private static let directory: String = {
    let here = #filePath
    return here.prefix(upTo: here.lastIndex(of: "/") ?? here.endIndex) + "/Corpus"
  }()
}
