// What was written to a simulated disk since its last flush, and what a crash makes of it.
//
// The disk keeps its bytes in pages that are copied when they are written to. A write notes, for each
// page that it touches, which sectors it touched and the page as it was then: a reference, no copy.
//
//     page 7    durable A A A A A A A A      write 1 to sectors 1-2    write 2 to sectors 2-3
//     noted                                  {1: .B B.....}            {2: .B C C....}
//     a crash   A B A C A A A A              sector 2 as neither left it, sector 3 as write 2 did
//
// A crash builds new pages only where something arrives; all the others are shared with the disk that
// goes on. It has one of several tempers, since a fault shows in few of the possible ends: all or nothing
// arrives, whole writes or single sectors do, everything up to some write, or all but one of them.

/// The unsynced writes of one disk.
struct UnsyncedWrites: Sendable {
  /// A page as one write left it.
  private struct Version: Sendable {
    var call: Int
    /// A bit for each sector that was written.
    var sectors: UInt8
    var bytes: [UInt8]
  }

  private var pages: [UInt64: [Version]] = [:]
  private var sizes: [(call: Int, size: UInt64)] = []
  private var firstCall = Int.max
  private var lastCall = 0

  private static let sectorSize = 512
  private static let sectorsPerPage = 8

  /// Nothing is left to be lost.
  var isEmpty: Bool { pages.isEmpty && sizes.isEmpty }

  /// How many sectors a crash could still change.
  var sectorCount: Int {
    pages.values.reduce(0) { sum, versions in
      sum + versions.reduce(0 as UInt8) { $0 | $1.sectors }.nonzeroBitCount
    }
  }

  /// Notes a write that has just been made.
  mutating func note(_ offset: UInt64, _ count: UInt64, call: Int, in bytes: SparseBytes) {
    if count == 0 { return }
    let pageSize = SparseBytes.pageSize
    for page in offset / pageSize...(offset + count - 1) / pageSize {
      let start = max(offset, page * pageSize) - page * pageSize
      let end = min(offset + count, (page + 1) * pageSize) - page * pageSize
      let first = Int(start) / Self.sectorSize
      let last = (Int(end) - 1) / Self.sectorSize
      let mask = UInt8(truncatingIfNeeded: (1 << (last + 1)) - (1 << first))
      let content = bytes.page(page) ?? Self.zeroPage
      pages[page, default: []].append(Version(call: call, sectors: mask, bytes: content))
    }
    note(call)
  }

  /// Notes a new length of the file.
  mutating func note(size: UInt64, call: Int) {
    sizes.append((call, size))
    note(call)
  }

  /// Notes that what is pending from a byte on was cut off.
  mutating func noteCut(from size: UInt64, call: Int, in bytes: SparseBytes) {
    for page in pages.keys where (page + 1) * SparseBytes.pageSize > size {
      let from = max(size, page * SparseBytes.pageSize)
      note(from, (page + 1) * SparseBytes.pageSize - from, call: call, in: bytes)
    }
  }

  private mutating func note(_ call: Int) {
    firstCall = min(firstCall, call)
    lastCall = max(lastCall, call)
  }

  private static let zeroPage = [UInt8](repeating: 0, count: Int(SparseBytes.pageSize))

  /// Forgets everything: it is durable.
  mutating func clear() {
    pages.removeAll(keepingCapacity: true)
    sizes.removeAll(keepingCapacity: true)
    firstCall = .max
    lastCall = 0
  }

  // MARK: - Crashes

  private enum Temper {
    case losesAll
    case keepsAll
    /// Each sector on its own, with a chance out of 4.
    case sectors(Int)
    /// Each write on its own, with a chance out of 4.
    case writes(Int)
    /// What came before a write, and some sectors of that.
    case upTo(Int)
    case onlyOne(Int)
    case allButOne(Int)
  }

  private func temper(_ random: inout SeededGenerator) -> Temper {
    let call = isEmpty ? 0 : Int.random(in: firstCall...lastCall, using: &random)
    return switch Int.random(in: 0..<14, using: &random) {
    case 0: .losesAll
    case 1: .keepsAll
    case 2...5: .sectors(Int.random(in: 1...3, using: &random))
    case 6...8: .writes(Int.random(in: 1...3, using: &random))
    case 9, 10: .upTo(call)
    case 11, 12: .onlyOne(call)
    default: .allButOne(call)
    }
  }

  /// What is left of a disk that had `durable` and these writes.
  func crash(_ durable: SparseBytes, seed: UInt64) -> SparseBytes {
    if isEmpty { return durable }
    var random = SeededGenerator(seed: seed)
    let temper = temper(&random)
    let salt = random.next()
    var left = durable
    for (page, versions) in pages {
      let whole =
        switch temper {
        case .losesAll: true
        case .keepsAll: true
        default: false
        }
      if whole {
        if case .keepsAll = temper, let last = versions.last { left.setPage(page, to: last.bytes) }
        continue
      }
      var content: [UInt8]?
      for sector in 0..<Self.sectorsPerPage {
        guard let version = pick(versions, page, sector, temper, salt) else { continue }
        let range = sector * Self.sectorSize..<(sector + 1) * Self.sectorSize
        if content == nil { content = left.page(page) ?? Self.zeroPage }
        content?.withUnsafeMutableBytes { target in
          versions[version].bytes.withUnsafeBytes { source in
            UnsafeMutableRawBufferPointer(rebasing: target[range])
              .copyMemory(from: UnsafeRawBufferPointer(rebasing: source[range]))
          }
        }
      }
      if let content { left.setPage(page, to: content) }
    }
    left.resize(to: size(durable.count, temper, salt))
    return left
  }

  /// The version of a sector that arrived, nil for the durable one.
  private func pick(
    _ versions: [Version], _ page: UInt64, _ sector: Int, _ temper: Temper, _ salt: UInt64
  ) -> Int? {
    let bit = UInt8(1) << UInt8(sector)
    switch temper {
    case .losesAll, .keepsAll: return nil
    case .sectors(let chance):
      let noise = Self.noise(salt, page &* 8 &+ UInt64(sector))
      if Int(noise % 4) >= chance { return nil }
      let candidates = versions.indices.filter { versions[$0].sectors & bit != 0 }
      if candidates.isEmpty { return nil }
      return candidates[Int((noise >> 8) % UInt64(candidates.count))]
    default:
      return versions.indices.last {
        versions[$0].sectors & bit != 0
          && arrives(versions[$0].call, page &* 8 &+ UInt64(sector), temper, salt)
      }
    }
  }

  private func arrives(_ call: Int, _ sector: UInt64, _ temper: Temper, _ salt: UInt64) -> Bool {
    switch temper {
    case .losesAll: false
    case .keepsAll: true
    case .sectors(let chance), .writes(let chance):
      Int(Self.noise(salt, UInt64(call)) % 4) < chance
    case .upTo(let last): call < last || call == last && Self.noise(salt, sector) % 2 == 0
    case .onlyOne(let one): call == one
    case .allButOne(let one): call != one
    }
  }

  private func size(_ durable: UInt64, _ temper: Temper, _ salt: UInt64) -> UInt64 {
    if case .sectors = temper {
      let index = Int(Self.noise(salt, .max) % UInt64(sizes.count + 1))
      return index == 0 ? durable : sizes[index - 1].size
    }
    return sizes.last { arrives($0.call, .max, temper, salt) }?.size ?? durable
  }

  /// A number that looks random and depends on nothing else.
  private static func noise(_ salt: UInt64, _ number: UInt64) -> UInt64 {
    var generator = SeededGenerator(seed: salt ^ number &* 0x9E6C_63D0_876A_68DE)
    return generator.next()
  }
}
