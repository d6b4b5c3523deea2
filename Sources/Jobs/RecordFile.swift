internal import HostSystem

/// The record of one running job on the host.
///
/// Lock: its own; held over the write, so that of two changes the later one is what stays, and that
/// nothing is written after the end.
final class RecordFile: Sendable {
  private struct State {
    /// Nil once the job has ended.
    var record: JobRecord?
    /// The file says the same, durably.
    var isOnDisk = false
  }

  private let path: String
  private let names: any NamedFiles
  private let state: Monitor<State>

  /// `earlier` is what the file says already, if there is one.
  init(path: String, record: JobRecord, earlier: JobRecord? = nil, names: any NamedFiles) {
    self.path = path
    self.names = names
    state = Monitor(State(record: record, isOnDisk: earlier == record))
  }

  /// Changes the record, durably; does nothing where nothing changes or the job has ended.
  ///
  /// A change that could not be written is written with the next one, also if that changes nothing.
  func change(_ body: @Sendable (inout JobRecord) -> Void) throws(RecordError) {
    try state.withLock { state throws(RecordError) in
      guard var changed = state.record else { return }
      body(&changed)
      if changed == state.record, state.isOnDisk { return }
      state.record = changed
      state.isOnDisk = false
      try write(changed)
      state.isOnDisk = true
    }
  }

  /// Writes the record as it is, durably, unless the file says the same already.
  func save() throws(RecordError) { try change { _ in } }

  /// Takes the record away for good: the job has ended.
  func remove() throws(RecordError) {
    try state.withLock { state throws(RecordError) in
      state.record = nil
      do throws(SystemError) {
        try AtomicFile.remove(path: path, on: names)
      } catch {
        throw .unwritable(path: path, kind: error.kind, reason: error.description)
      }
    }
  }

  /// The record that an earlier mount left for an image, if any.
  static func load(path: String, names: any NamedFiles) throws(RecordError) -> JobRecord? {
    let bytes: [UInt8]?
    do {
      bytes = try AtomicFile.contents(of: path, limit: 65536, on: names)
    } catch {
      throw .unwritable(path: path, kind: error.kind, reason: error.description)
    }
    return try bytes.map { bytes throws(RecordError) in
      try JobRecord(bytes: bytes, path: path)
    }
  }

  private func write(_ record: JobRecord) throws(RecordError) {
    let bytes = try record.encoded()
    do {
      try AtomicFile.replace(path: path, bytes: bytes, on: names)
    } catch {
      throw .unwritable(path: path, kind: error.kind, reason: error.description)
    }
  }
}
