internal import BlockIO
internal import HostSystem
internal import ImageDriver

// Where a qcow2 image has the bytes of its guest, if that is not plainly the image file:
//
//     image file            --LUKS-->  guest
//     external data file               guest       at the guest's own offsets
//     external data file    --LUKS-->  guest
//
// A data file is opened in the role of its image and with the same locks, which is a bit stricter than
// QEMU: that lets others write to a data file beside it. Its name resolves as a backing name does, and
// it has to lie in backing-root: a header names it, that of the active image no less than another's.

/// The files of a chain that are open so far: none may be there twice.
struct ChainFiles {
  /// Which part of which file a layer is.
  private struct Place: Hashable {
    var file: StorageIdentity
    var windows: [BackingName.Window]
  }

  private var layers: Set<Place> = []
  private var layerFiles: Set<StorageIdentity> = []
  private var dataFiles: Set<StorageIdentity> = []

  /// Takes note of a layer; false if it is there already. Two windows of one file are two layers.
  mutating func isNew(layer file: StorageIdentity, windows: [BackingName.Window]) -> Bool {
    layerFiles.insert(file)
    return !dataFiles.contains(file)
      && layers.insert(Place(file: file, windows: windows)).inserted
  }

  /// Takes note of a data file; false if it is in use already, for whatever.
  mutating func isNew(dataFile file: StorageIdentity) -> Bool {
    !layerFiles.contains(file) && dataFiles.insert(file).inserted
  }
}

extension ChainOpener {
  /// Opens what has the bytes of an image's guest, nil for the image file itself.
  func guestData(
    of storage: any BlockStorage, _ seen: inout ChainFiles
  ) throws(ChainError) -> (any BlockStorage)? {
    let needs = try onImage { () throws(ImageError) in try ImageNeeds(of: storage) }
    var data: (any BlockStorage)?
    if let file = needs.dataFile {
      guard let name = file.name else { throw .dataFileRequired(image: storage.path) }
      data = try openDataFile(name, of: storage, &seen)
    }
    guard needs.isEncrypted else { return data }
    do throws(ChainError) {
      return try onImage { () throws(ImageError) in
        switch configuration.encryptedImages {
        case .opened(let secret):
          let cipher = try Qcow2Image.unlock(storage, with: secret)
          return EncryptedStorage(data ?? storage, cipher: cipher)
        case .tablesOnly: return EncryptedStorage(data ?? storage, cipher: nil)
        case .refused: throw .secretNeeded(path: storage.path)
        }
      }
    } catch {
      data?.close()
      throw error
    }
  }

  private func openDataFile(
    _ name: String, of image: any BlockStorage, _ seen: inout ChainFiles
  ) throws(ChainError) -> any BlockStorage {
    func refusal(_ reason: String) -> ChainError {
      .dataFileRefused(name: name, image: image.path, reason: reason)
    }
    let file: BackingName
    do { file = try BackingName(name: name, format: "raw", overlay: image.path) } catch {
      guard case .backingRefused(_, _, let reason) = error else {
        throw refusal("it is not a plain file")
      }
      throw refusal(reason)
    }
    guard file.windows.isEmpty, file.below == .asItsHeaderSays else {
      throw refusal("it is not a plain file")
    }
    let path = PlacePath.resolve(file.path, from: PlacePath.directory(of: image.path))
    let identity: StorageIdentity
    do {
      identity = try files.identity(of: path)
    } catch {
      throw error.kind == .notFound
        ? .dataFileMissing(path: path, image: image.path) : .storage(error)
    }
    // Before it is opened: our own lock on it would be all that one learns.
    guard seen.isNew(dataFile: identity) else { throw refusal("it is in the chain already") }
    let data = try openInRoot(
      path, role: image.isReadOnly ? .backing : .active, isReadOnly: image.isReadOnly)
    guard data.identity == identity else {
      data.close()
      throw refusal("another file took its place while it was opened")
    }
    return data
  }
}
