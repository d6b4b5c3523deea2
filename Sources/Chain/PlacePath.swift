internal import SystemPackage

// Paths as text. Whether two of them are one file is never decided here, only by device and inode.

/// A path of the host, as far as it can be computed without looking at the host.
enum PlacePath {
  /// The path itself if it is absolute, else the path seen from a directory.
  ///
  /// QEMU resolves a relative backing name from the directory of the overlay's path as it was given,
  /// symbolic links in that path not followed; so does this.
  static func resolve(_ path: String, from directory: String) -> String {
    let named = FilePath(path)
    if named.isAbsolute { return path }
    return FilePath(directory).appending(named.components).string
  }

  /// The directory part of a path, `.` for a bare name.
  static func directory(of path: String) -> String {
    let parent = FilePath(path).removingLastComponent()
    return parent.isEmpty ? "." : parent.string
  }

  /// The last component of a path.
  static func fileName(of path: String) -> String {
    FilePath(path).lastComponent?.string ?? path
  }

  /// Whether a path starts at the root.
  static func isAbsolute(_ path: String) -> Bool {
    FilePath(path).isAbsolute
  }

  /// The path without `.` and `..`, by text alone.
  static func normalized(_ path: String) -> String {
    FilePath(path).lexicallyNormalized().string
  }

  /// Whether a path lies in a directory; both without `.`, `..` and symbolic links.
  static func lies(_ path: String, in directory: String) -> Bool {
    FilePath(path).starts(with: FilePath(directory))
  }

  /// How a file is named from a directory; both absolute, `..` taken by text alone.
  static func relative(_ path: String, to directory: String) -> String {
    let target = Array(FilePath(path).lexicallyNormalized().components)
    let origin = Array(FilePath(directory).lexicallyNormalized().components)
    var shared = 0
    while shared < origin.count, shared < target.count - 1, origin[shared] == target[shared] {
      shared += 1
    }
    var result = FilePath()
    for _ in origin[shared...] { result.append("..") }
    for component in target[shared...] { result.append(component) }
    // A colon before the first slash would make it a protocol's name.
    let text = result.string
    return BackingName.scheme(of: text) == nil ? text : "./" + text
  }
}
