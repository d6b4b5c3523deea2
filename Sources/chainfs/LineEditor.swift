internal import CEdit
internal import Glibc

// A line that is typed at a terminal, by libedit: keys, history, drawing.
//
// Tab, Ctrl-C and Ctrl-Z are ours. libedit calls a function for them in the middle of its reading; it finds this
// object by the pointer that libedit keeps for us.

/// Reads lines from the terminal.
@safe final class LineEditor {
  /// How many lines can be had back.
  static let historyLength = 1000

  private let edit: OpaquePointer
  private let lines: OpaquePointer
  private let complete: (String) -> WordCompletion.Step
  /// Ctrl-C ended the line.
  private var wasCleared = false

  /// Takes the terminal; `complete` gets what stands before the cursor when Tab is pressed.
  init(complete: @escaping (String) -> WordCompletion.Step) throws(CommandFailure) {
    guard let edit = unsafe chainfs_edit_open() else {
      throw CommandFailure("the terminal cannot be had")
    }
    guard let lines = unsafe history_init() else {
      unsafe el_end(edit)
      throw CommandFailure("no memory for the history")
    }
    unsafe self.edit = edit
    unsafe self.lines = lines
    self.complete = complete
    unsafe chainfs_history_prepare(lines, Int32(Self.historyLength))
    // Alive: the pointer is followed in `read` alone, which has this object.
    let owner = unsafe Unmanaged.passUnretained(self).toOpaque()
    unsafe chainfs_edit_prepare(
      edit, lines, owner, tabCallback, interruptCallback, suspendCallback)
  }

  deinit {
    // Alive until here; nobody else has them. The terminal gets its settings back.
    unsafe el_end(edit)
    unsafe history_end(lines)
  }

  /// Adds a line to those that can be had back.
  func remember(_ line: String) {
    // Alive: libedit copies the bytes.
    unsafe chainfs_history_add(lines, line)
  }

  /// The next line, without its newline; empty after Ctrl-C, nil after Ctrl-D.
  func read() -> String? {
    var count: Int32 = 0
    wasCleared = false
    // Alive: libedit's own line, until it reads the next.
    let line = unsafe el_gets(edit, &count)
    if wasCleared { return "" }
    guard let line = unsafe line, count > 0 else { return nil }
    return unsafe String(cString: line).split(separator: "\n").first.map(String.init) ?? ""
  }

  /// Answers Tab; gives what libedit is to do.
  fileprivate func completeWord() -> UInt8 {
    // Alive: libedit's own line. In bounds: the cursor is within it.
    guard let info = unsafe el_line(edit)?.pointee, let buffer = unsafe info.buffer else {
      return UInt8(CC_ERROR)
    }
    let length = unsafe info.cursor - buffer
    let bytes = unsafe UnsafeRawBufferPointer(start: buffer, count: length)
    switch complete(unsafe String(decoding: bytes, as: UTF8.self)) {
    case .nothing: return UInt8(CC_REFRESH_BEEP)
    case .replace(let count, let text):
      unsafe el_deletestr(edit, Int32(count))
      // Alive: libedit copies the bytes. It refuses what does not fit into its longest line.
      return UInt8(unsafe el_insertstr(edit, text) == 0 ? CC_REFRESH : CC_REFRESH_BEEP)
    case .list(let words):
      Terminal.write("\n" + WordCompletion.columns(words, width: Terminal.width))
      return UInt8(CC_REDISPLAY)
    }
  }

  /// Answers Ctrl-C.
  fileprivate func clear() -> UInt8 {
    Terminal.write("^C\n")
    wasCleared = true
    // An empty line ends the reading with nothing.
    // Alive: libedit's own line. It tells bytes and deletes characters, of which there are no more; the
    // cursor stops at the end, and says how many there are.
    if let info = unsafe el_line(edit)?.pointee {
      let end = unsafe el_cursor(edit, Int32(info.lastchar - info.buffer))
      unsafe el_deletestr(edit, end)
    }
    return UInt8(CC_NEWLINE)
  }
}

private func tabCallback(_ edit: OpaquePointer?, _ key: Int32) -> UInt8 {
  unsafe owner(of: edit)?.completeWord() ?? UInt8(CC_ERROR)
}

private func interruptCallback(_ edit: OpaquePointer?, _ key: Int32) -> UInt8 {
  unsafe owner(of: edit)?.clear() ?? UInt8(CC_ERROR)
}

private func suspendCallback(_ edit: OpaquePointer?, _ key: Int32) -> UInt8 {
  // To all of the job, as the terminal sends it. libedit gives the terminal back meanwhile.
  kill(0, SIGTSTP)
  return UInt8(CC_NORM)
}

private func owner(of edit: OpaquePointer?) -> LineEditor? {
  // Alive: libedit calls within `read`.
  guard let owner = unsafe chainfs_edit_owner(edit) else { return nil }
  return unsafe Unmanaged<LineEditor>.fromOpaque(owner).takeUnretainedValue()
}
