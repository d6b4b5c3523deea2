import Foundation

/// A directory of one test, removed with everything in it when the last reference is gone.
package final class TemporaryDirectory: Sendable {
  /// Where it is.
  package let path: String

  /// Makes a new one, in `CHAINFS_TEST_DIRECTORY` if that is set, else in the system's place.
  package init() throws {
    let parent =
      ProcessInfo.processInfo.environment["CHAINFS_TEST_DIRECTORY"] ?? NSTemporaryDirectory()
    path =
      URL(fileURLWithPath: parent)
      .appendingPathComponent("chainfs-test-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  /// The path of a file in it.
  package func file(_ name: String) -> String { path + "/" + name }
}
