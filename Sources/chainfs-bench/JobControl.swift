import Glibc
import HostSystem

/// Who is told to stream a served disk, and asked how far that is.
protocol JobControl {
  /// Starts to stream the whole chain, as fast as it goes.
  func start() throws
  /// The bytes that the running job is through with; nil if no job runs.
  func progress() throws -> Double?
  /// Waits for the end of the job; throws if it did not do all of its work.
  func finish() throws
  /// Cancels the job and waits until it is gone.
  func cancel() throws
  /// Asks once which jobs run, without reading the answer.
  func ask() throws
}

/// The control files of chainfs.
struct ControlFiles: JobControl {
  /// The device's own.
  var directory: String

  func start() throws { try write("\n", to: "stream") }

  func progress() throws -> Double? {
    // Streaming device vda: Completed 679477248 of 21474836480 bytes, ...
    let words = try text(of: "status").prefix { $0 != "\n" }.split(separator: " ")
    guard let index = words.firstIndex(of: "Completed"), index + 1 < words.count else { return nil }
    return Double(words[index + 1])
  }

  func finish() throws {
    let ending = try text(of: "wait")
    if !ending.hasSuffix(": completed\n") { throw BenchError("the stream ended: \(ending)") }
  }

  func cancel() throws {
    try write("\n", to: "cancel")
    _ = try text(of: "wait")
  }

  // What cat(1) does.
  func ask() throws { _ = try text(of: "status") }

  private func text(of name: String) throws -> String {
    let file = try SystemCall.open("\(directory)/\(name)", flags: O_RDONLY)
    return try Tool.contents(of: file.raw)
  }

  // One command is one write.
  private func write(_ text: String, to name: String) throws {
    let file = try SystemCall.open("\(directory)/\(name)", flags: O_WRONLY)
    let bytes = Array(text.utf8)
    try SystemCall.write(file.raw, bytes.rawSpan, at: 0)
  }
}

/// The QMP monitor of QEMU's storage daemon.
struct QMPControl: JobControl {
  /// The name of the node that is exported and streamed.
  static let node = "disk"

  private struct RunningJob: Decodable { var offset: Double }
  private struct Nothing: Decodable {}

  private static let query = #"{"execute":"query-block-jobs"}"#
  private let client: QMPClient

  init(path: String) throws { client = try QMPClient(path: path) }

  func start() throws {
    let words = #"{"execute":"block-stream","arguments":{"job-id":"job","device":"\#(Self.node)"}}"#
    _ = try client.execute(words, as: Nothing.self)
  }

  func progress() throws -> Double? {
    try client.execute(Self.query, as: [RunningJob].self).first?.offset
  }

  func finish() throws {
    let ending = try client.event(among: ["BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"])
    if ending.event != "BLOCK_JOB_COMPLETED" || ending.data?.error != nil {
      throw BenchError("the stream ended: \(ending.data?.error ?? ending.event)")
    }
  }

  func cancel() throws {
    _ = try client.execute(
      #"{"execute":"block-job-cancel","arguments":{"device":"job"}}"#, as: Nothing.self)
    _ = try client.event(among: ["BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"])
  }

  func ask() throws { _ = try client.answer(to: Self.query) }
}
