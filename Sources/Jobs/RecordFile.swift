internal import HostSystem
internal import Synchronization

/// The record of one running job on the host.
///
/// Lock: its own; held over the write, so that of two changes the later one is what stays, and that
/// nothing is written after the end.
final class RecordFile: Sendable {
  private let path: String
  private let names: any NamedFiles
  // Nil once the job has ended.
  private let record: Mutex<JobRecord?>

  init(path: String, record: JobRecord, names: any NamedFiles) {
    self.path = path
    self.names = names
    self.record = Mutex(record)
  }

  /// Changes the record, durably; does nothing where nothing changes or the job has ended.
  func change(_ body: @Sendable (inout JobRecord) -> Void) throws(RecordError) {
    try record.withLock { record throws(RecordError) in
      guard var changed = record else { return }
      body(&changed)
      if changed == record { return }
      record = changed
      try write(changed)
    }
  }

  /// Writes the record as it is, durably.
  func save() throws(RecordError) {
    try record.withLock { record throws(RecordError) in
      if let record { try write(record) }
    }
  }

  /// Takes the record away for good: the job has ended.
  func remove() throws(RecordError) {
    try record.withLock { record throws(RecordError) in
      record = nil
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
