internal import BlockIO
internal import HostSystem

// By which string the active image names its new base.
//
// It should read as the layer above the base wrote it, because an administrator chose that string: a
// relative one lets the whole chain be moved. But it was written for that layer's directory, and the
// active image may lie elsewhere. So candidates are tried in order, and the first one that leads from
// the active image's own directory to the very same file (device and inode) is taken:
//
//     1  the string itself
//     2  if it was relative: the same file seen from here, `..` computed by text
//     3  the same with symbolic links resolved, for directories that are reached through one
//     4  the absolute path
//
// Nothing is written before one of them holds. A string that says more than a file, a window of one
// or what lies below it, keeps saying that: then candidates are the string itself and QEMU's `json:`
// form with the absolute path, since QEMU resolves a relative one in it from its working directory.

/// Finds and checks the string that goes into the header of the active image.
struct BackingString {
  /// The path of the active image.
  var overlay: String
  /// The file that the string has to lead to.
  var base: StorageIdentity
  /// The path of the base, absolute or relative to the working directory.
  var basePath: String
  /// What the layer above the base calls it.
  var namedAs: String?
  /// The format of the base.
  var format: String
  var files: any ImageFiles

  /// Checks a string that somebody asked for.
  func checked(_ requested: String) throws(ChainError) -> String {
    guard try leads(requested) else {
      throw .backingStringInvalid(string: requested, overlay: overlay, base: basePath)
    }
    return requested
  }

  /// The first candidate that leads to the base.
  func chosen() throws(ChainError) -> String {
    for candidate in try candidates() where try leads(candidate) {
      return candidate
    }
    throw .backingStringInvalid(string: namedAs ?? basePath, overlay: overlay, base: basePath)
  }

  private func candidates() throws(ChainError) -> [String] {
    let absolute = try onStorage { () throws(StorageError) in
      try files.absolutePath(of: basePath)
    }
    guard let namedAs, let named = try named() else { return [absolute] }
    let isPlain = named.spelled(path: absolute) == absolute
    if PlacePath.isAbsolute(named.path) || !isPlain {
      return [namedAs, named.spelled(path: absolute)]
    }
    var result = BackingName.scheme(of: namedAs) == nil ? [namedAs] : []
    try onStorage { () throws(StorageError) in
      let here = PlacePath.directory(of: try files.absolutePath(of: overlay))
      let realHere = PlacePath.directory(of: try files.canonicalPath(of: overlay))
      result.append(PlacePath.relative(absolute, to: here))
      result.append(PlacePath.relative(try files.canonicalPath(of: basePath), to: realHere))
    }
    return result + [absolute]
  }

  /// What the layer above the base says of it.
  private func named() throws(ChainError) -> BackingName? {
    guard let namedAs else { return nil }
    return try BackingName(name: namedAs, format: format, overlay: overlay)
  }

  private func leads(_ string: String) throws(ChainError) -> Bool {
    let name = try BackingName(name: string, format: format, overlay: overlay)
    guard try name.showsTheSame(as: named() ?? BackingName(path: basePath)) else { return false }
    let path = PlacePath.resolve(name.path, from: PlacePath.directory(of: overlay))
    do {
      return try files.identity(of: path) == base
    } catch {
      // A file that is not there is not the base; any other failure is told.
      if error.kind == .notFound { return false }
      throw .storage(error)
    }
  }
}
