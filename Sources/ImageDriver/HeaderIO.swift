internal import BlockIO
internal import HostSystem
internal import Qcow2Format

extension ImageHeader {
  /// The bytes that a full parse needs, nil if the file does not begin as a qcow2 image.
  static func clusterSize(of storage: any BlockStorage) throws(ImageError) -> Int? {
    var prefix = [UInt8](repeating: 0, count: 512)
    var failure: StorageError?
    var found = 0
    prefix.withMutableBytes { span in
      do throws(StorageError) { found = try storage.read(into: &span, at: .zero) } catch {
        failure = error
      }
    }
    if let failure { throw .storage(failure) }
    return Array(prefix[..<found]).withBytes { ImageHeader.clusterSizeNeeded(prefix: $0) }
  }

  /// Reads and checks the header of an image.
  static func read(from storage: any BlockStorage) throws(ImageError) -> ImageHeader {
    let cluster = try firstCluster(of: storage)
    do { return try unsafe ImageHeader.parse(cluster.span.bytes) } catch {
      throw .format(path: storage.path, error)
    }
  }

  /// Throws if the file ends before the tables that the header points to: it was cut short.
  func checkTables(in storage: any BlockStorage) throws(ImageError) {
    let size = try onStorage { () throws(StorageError) in try storage.size() }
    var tables: [(name: String, start: UInt64, byteCount: Int)] = [
      ("L1 table", l1TableOffset, l1Size * 8),
      ("refcount table", refcountTableOffset, refcountTableClusters * geometry.clusterSize),
    ]
    if let area = encryptionHeader {
      tables.append(("LUKS header", area.offset, Int(area.byteCount)))
    }
    for table in tables where table.start > size || UInt64(table.byteCount) > size - table.start {
      throw .corrupt(
        path: storage.path,
        reason: "the \(table.name) at \(table.start) goes beyond the end of the file at \(size)")
    }
  }

  /// The first cluster, or as much of it as the file has.
  static func firstCluster(of storage: any BlockStorage) throws(ImageError) -> [UInt8] {
    guard let size = try clusterSize(of: storage) else {
      throw .format(path: storage.path, .notQcow2)
    }
    var bytes = [UInt8](repeating: 0, count: size)
    var failure: StorageError?
    var found = 0
    bytes.withMutableBytes { span in
      do throws(StorageError) { found = try storage.read(into: &span, at: .zero) } catch {
        failure = error
      }
    }
    if let failure { throw .storage(failure) }
    return Array(bytes[..<found])
  }
}
