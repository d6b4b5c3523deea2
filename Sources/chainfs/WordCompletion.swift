internal import QMP

// What Tab does to the word before the cursor. What may stand there is asked of `choices`; here it is
// narrowed down to what goes on the line.

/// The completion of words of monitor lines.
struct WordCompletion {
  /// What the editor is to do.
  enum Step: Equatable {
    /// Nothing fits.
    case nothing
    /// So many characters before the cursor go, and this comes.
    case replace(Int, with: String)
    /// Show what fits.
    case list([String])
  }

  /// A word that may stand somewhere.
  struct Choice: Equatable {
    var word: String
    /// It is the beginning of a longer one, as a directory is.
    var goesOn = false
  }

  /// What may stand in place of a word.
  var choices: (MonitorWord) -> [Choice]

  /// What to do with the text before the cursor.
  func step(_ text: String) -> Step {
    let word = MonitorWord(endOf: text)
    let fitting = choices(word).filter {
      $0.word.utf8.starts(with: word.text.utf8)
    }
    guard let first = fitting.first else { return .nothing }
    let isOnly = fitting.count == 1
    let common = fitting.dropFirst().reduce(Substring(first.word)) {
      Self.common($0, $1.word)
    }
    if !isOnly, common.utf8.count == word.text.utf8.count { return .list(fitting.map(\.word)) }
    let ending: MonitorWord.Ending = isOnly && !first.goesOn ? .complete : .open
    return .replace(word.length, with: word.written(as: String(common), ending))
  }

  private static func common(_ first: Substring, _ second: String) -> Substring {
    let scalars = zip(first.unicodeScalars, second.unicodeScalars).prefix { $0 == $1 }
    return Substring(first.unicodeScalars.prefix(scalars.count))
  }

  /// Words in columns as ls shows them, a hundred at most.
  static func columns(_ words: [String], width: Int) -> String {
    let shown = words.prefix(100)
    let widest = shown.map(\.count).max() ?? 0
    let columns = max(1, width / (widest + 2))
    let rows = (shown.count + columns - 1) / columns
    var text = ""
    for row in 0..<rows {
      var line = ""
      for index in stride(from: row, to: shown.count, by: rows) {
        line += shown[index] + String(repeating: " ", count: widest + 2 - shown[index].count)
      }
      while line.last == " " { line.removeLast() }
      text += line + "\n"
    }
    return words.count > shown.count ? text + "and \(words.count - shown.count) more\n" : text
  }
}
