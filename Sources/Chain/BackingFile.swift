internal import BlockIO
package import ImageDriver

/// Looking at a file that an overlay is to name as its backing file.
package enum BackingFile {
  /// The format of the file and the size of the disk in it, as a mount would see them.
  ///
  /// `overlay` is the path of the image that will name it. A file without a named format has to be
  /// qcow2. Nothing stays open.
  package static func describe(
    _ reference: BackingReference, of overlay: String, files: any ImageFiles = HostImageFiles()
  ) throws(ChainError) -> (format: String, virtualSize: UInt64) {
    let opener = ChainOpener(
      configuration: DeviceConfiguration(name: "", image: .qcow2(path: overlay)), files: files)
    return try opener.describe(reference, overlay: overlay)
  }
}

extension ChainOpener {
  fileprivate func describe(
    _ reference: BackingReference, overlay: String
  ) throws(ChainError) -> (format: String, virtualSize: UInt64) {
    let name = try BackingName(
      name: reference.name, format: reference.format, overlay: overlay)
    let path = PlacePath.resolve(name.path, from: PlacePath.directory(of: overlay))
    let file = try openFile(path, role: .backing, isReadOnly: true)
    defer { file.close() }
    let storage = try windows(name, of: file, string: reference.name, overlay: overlay)
    if name.format == .raw {
      return try onImage { () throws(ImageError) in
        ("raw", try RawImage(storage: storage).virtualSize)
      }
    }
    try checkQcow2(storage)
    return try onImage { () throws(ImageError) in
      ("qcow2", try ImageDescription(of: storage).virtualSize)
    }
  }
}
