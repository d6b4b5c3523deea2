import Foundation
import HostSystem
import TestSupport
import Testing

@testable import BlockIO

@Suite struct PastPageCacheTests {
  let directory: TemporaryDirectory
  init() throws { directory = try TemporaryDirectory() }

  private func content(of file: HostFile, at offset: Int, upTo count: Int) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0xEE, count: count)
    var span = bytes.mutableRawSpan
    let found = try file.read(into: &span, at: HostOffset(UInt64(offset)))
    return Array(bytes.prefix(found))
  }

  @Test("a file is never longer than what was written to it, and its end reads short")
  func lengths() throws {
    var random = Seed.generator("lengths")
    let file = try HostFile.create(directory.file("image"), pageCache: .avoided)
    var model: [UInt8] = []
    for _ in 0..<300 {
      let offset = Int.random(in: 0...model.count + 3000, using: &random)
      let bytes = random.bytes(Int.random(in: 1...2500, using: &random))
      try file.put(bytes, at: UInt64(offset), intent: .metadata)
      let end = offset + bytes.count
      if end > model.count { model += [UInt8](repeating: 0, count: end - model.count) }
      model.replaceSubrange(offset..<end, with: bytes)
      try #require(try file.size() == UInt64(model.count))
      let place = Int.random(in: 0...model.count, using: &random)
      let wanted = Int.random(in: 0...9000, using: &random)
      let found = try content(of: file, at: place, upTo: wanted)
      #expect(found == Array(model[place..<min(place + wanted, model.count)]))
    }
    try file.flush()
    #expect(FileManager.default.contents(atPath: file.path).map { Array($0) } == model)
  }

  @Test("writers of parts of one sector do not lose each other's bytes")
  func sharedSectors() throws {
    let file = try HostFile.create(directory.file("image"), pageCache: .avoided)
    try file.truncate(to: 1 << 16)
    let writers = 4
    let width = 64
    let threads = try (0..<writers).map { number in
      try Worker(name: "writer") {
        // Each has a column of its own in every stretch of 256 bytes, and writes it over and over.
        for round in 1...10 {
          for row in 0..<256 {
            let bytes = [UInt8](repeating: UInt8(number * 50 + round), count: width)
            do { try file.put(bytes, at: UInt64(row * 256 + number * width)) } catch {
              Issue.record("\(error)")
            }
          }
        }
      }
    }
    for thread in threads { thread.join() }
    let found = try file.bytes(at: 0, count: 1 << 16)
    for (place, byte) in found.enumerated() {
      let number = place % 256 / width
      if byte != UInt8(number * 50 + 10) {
        Issue.record("byte \(place) is \(byte)")
        break
      }
    }
  }

  @Test("a file that can only be read is read past the page cache too")
  func readOnly() throws {
    let path = directory.file("image")
    let content = (0..<10_001).map { UInt8(truncatingIfNeeded: $0 * 7) }
    try Data(content).write(to: URL(fileURLWithPath: path))
    let file = try HostFile.open(
      path, access: .readOnly, locking: .none, role: .backing, pageCache: .avoided)
    #expect(try self.content(of: file, at: 0, upTo: 20_000) == content)
    #expect(try self.content(of: file, at: 4097, upTo: 511) == Array(content[4097..<4608]))
    #expect(try self.content(of: file, at: 10_000, upTo: 1) == [content[10_000]])
    #expect(try self.content(of: file, at: 10_001, upTo: 1) == [])
    #expect(throws: StorageError.readOnly(path: path)) { try file.put([1], at: 0) }
    try file.flush()
  }
}
