/// How often each host cluster is used, for as many clusters as a file has.
///
/// One byte a cluster, in pages that exist only where something was counted; the few counts that do
/// not fit a byte are kept apart. A sparse file of any length costs what its tables point to.
struct ReferenceCounts {
  /// The clusters that can be counted.
  let capacity: UInt64
  private var pages: [[UInt8]]
  private var large: [UInt64: Int] = [:]

  private static let pageBits: UInt64 = 16
  private static let pageSize = 1 << pageBits

  /// The most clusters that can be counted; QEMU has the same limit.
  static let maximumCapacity = UInt64(Int32.max)

  /// No references for `capacity` clusters, at most `maximumCapacity`.
  init(capacity: UInt64) {
    precondition(capacity <= Self.maximumCapacity, "too many clusters to count")
    self.capacity = capacity
    pages = Array(repeating: [], count: Int(capacity >> Self.pageBits) + 1)
  }

  /// How often a cluster is used.
  subscript(_ cluster: UInt64) -> Int {
    let page = pages[Int(cluster >> Self.pageBits)]
    if page.isEmpty { return 0 }
    let count = page[Int(cluster) & (Self.pageSize - 1)]
    return count < .max ? Int(count) : large[cluster, default: 0]
  }

  /// Counts `times` more uses of a cluster.
  mutating func add(_ times: Int, to cluster: UInt64) {
    precondition(cluster < capacity, "a cluster outside of the file was counted")
    let page = Int(cluster >> Self.pageBits)
    let place = Int(cluster) & (Self.pageSize - 1)
    if pages[page].isEmpty { pages[page] = [UInt8](repeating: 0, count: Self.pageSize) }
    let old = pages[page][place]
    if times == 1, old < .max - 1 {
      pages[page][place] = old + 1
      return
    }
    let sum = self[cluster] + times
    pages[page][place] = UInt8(clamping: sum)
    if sum >= Int(UInt8.max) { large[cluster] = sum }
  }

  /// Nothing was counted near the clusters; a quick answer that may be false for unused ones.
  func hasNone(in clusters: Range<UInt64>) -> Bool {
    guard let last = clusters.last else { return true }
    let first = Int(clusters.lowerBound >> Self.pageBits)
    return pages[first...Int(last >> Self.pageBits)].allSatisfy(\.isEmpty)
  }
}

/// A set of host clusters, in pages of bits that exist only where it has members.
struct ClusterSet {
  private var pages: [[UInt64]] = []
  /// Members that no file has; a few.
  private var far: Set<UInt64> = []

  private static let pageBits: UInt64 = 15

  /// Takes a cluster in.
  mutating func insert(_ cluster: UInt64) {
    guard cluster < ReferenceCounts.maximumCapacity else {
      far.insert(cluster)
      return
    }
    let page = Int(cluster >> Self.pageBits)
    if page >= pages.count { pages += Array(repeating: [], count: page + 1 - pages.count) }
    if pages[page].isEmpty {
      pages[page] = [UInt64](repeating: 0, count: 1 << Int(Self.pageBits - 6))
    }
    let place = Int(cluster & (1 << Self.pageBits - 1))
    pages[page][place >> 6] |= 1 << UInt64(place & 63)
  }

  /// The cluster is in the set.
  func contains(_ cluster: UInt64) -> Bool {
    guard cluster < ReferenceCounts.maximumCapacity else { return far.contains(cluster) }
    let page = Int(cluster >> Self.pageBits)
    guard page < pages.count, !pages[page].isEmpty else { return false }
    let place = Int(cluster & (1 << Self.pageBits - 1))
    return pages[page][place >> 6] & (1 << UInt64(place & 63)) != 0
  }
}
