import BlockIO
import Encryption
import HostSystem
import Synchronization
import TestSupport
import Testing

@testable import ImageDriver

@Suite struct EncryptedStorageTests {
  private func cipher(_ specification: CipherSpecification) throws -> SectorCipher {
    var key = (0..<(specification.modeName == "xts" ? 64 : 32)).map { UInt8($0) }
    return try #require(SectorCipher(specification, key: SecretBytes(taking: &key)))
  }

  private func read(_ storage: EncryptedStorage, _ offset: Int, _ count: Int) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0xee, count: count)
    var span = bytes.mutableRawSpan
    #expect(try storage.read(into: &span, at: HostOffset(UInt64(offset))) == count)
    return bytes
  }

  static let forms = [
    CipherSpecification(.aes256XTS, .plain64), CipherSpecification(.aes256CBC, .essivSHA256),
  ]

  @Test(
    "writes and zeroes at any place read back, and are not in the file in plain",
    arguments: forms)
  func randomWork(form: CipherSpecification) throws {
    var random = Seed.generator("encrypted storage")
    let base = MemoryStorage()
    let storage = EncryptedStorage(base, cipher: try cipher(form))
    var model = ByteModel(size: 4 << 20)
    try storage.writeZeroes(at: .zero, length: 4 << 20)
    #expect(try read(storage, 0, 4 << 20) == model.bytes)
    for _ in 0..<150 {
      let start = Int.random(in: 0..<model.bytes.count, using: &random)
      let most = random.oneIn(10) ? 2 << 20 : 3000
      let count = Int.random(in: 1...min(most, model.bytes.count - start), using: &random)
      if random.oneIn(5) {
        try storage.writeZeroes(at: HostOffset(UInt64(start)), length: UInt64(count))
        model.zero(GuestRange(offset: GuestOffset(UInt64(start)), length: UInt64(count)))
      } else {
        let bytes = random.bytes(count)
        try storage.write(bytes.rawSpan, at: HostOffset(UInt64(start)), intent: .data)
        model.write(bytes, at: start)
      }
      let place = Int.random(in: 0..<model.bytes.count - 2000, using: &random)
      #expect(try read(storage, place, 2000) == model.read(at: place, count: 2000))
    }
    #expect(try read(storage, 0, 4 << 20) == model.bytes)
    let cipherText = base.snapshot.bytes(0, 4 << 20)
    #expect(
      !stride(from: 0, to: 4 << 20, by: 512).contains { place in
        cipherText[place..<place + 512].elementsEqual(model.bytes[place..<place + 512])
      })
  }

  @Test("a discard keeps the bytes of sectors that it only touches")
  func discardEdges() throws {
    let storage = EncryptedStorage(MemoryStorage(), cipher: try cipher(Self.forms[0]))
    let bytes = [UInt8](repeating: 9, count: 4096)
    try storage.write(bytes.rawSpan, at: .zero, intent: .data)
    try storage.discard(at: HostOffset(700), length: 1000)
    try storage.discard(at: HostOffset(3000), length: 10)
    #expect(try read(storage, 0, 1024) == [UInt8](repeating: 9, count: 1024))
    #expect(try read(storage, 1536, 2560) == [UInt8](repeating: 9, count: 2560))
  }

  @Test("writers of parts of one sector lose nothing, and readers see no garbage", arguments: forms)
  func sharedSectors(form: CipherSpecification) throws {
    let storage = EncryptedStorage(MemoryStorage(), cipher: try cipher(form))
    let size = 2048
    try storage.writeZeroes(at: .zero, length: UInt64(size))
    let seed = Seed.of("shared sectors")
    // Thread n owns the bytes n, n + 8, ... and writes only its number or zero, one by one.
    let workers = try (0..<8).map { number in
      try Worker(name: "writer \(number)") {
        var random = SeededGenerator(seed: seed &+ UInt64(number))
        var own = [UInt8](repeating: 0, count: size / 8)
        do {
          for _ in 0..<400 {
            let index = Int.random(in: 0..<size / 8, using: &random)
            own[index] = random.oneIn(3) ? 0 : UInt8(number + 1)
            try storage.write(
              [own[index]].rawSpan, at: HostOffset(UInt64(index * 8 + number)), intent: .data)
            let found = try read(storage, index / 4 * 32, 32)
            for (place, byte) in found.enumerated() {
              #expect(byte == 0 || byte == UInt8(place % 8 + 1))
            }
          }
          let found = try read(storage, 0, size)
          #expect(own.indices.allSatisfy { found[$0 * 8 + number] == own[$0] })
        } catch { Issue.record("\(error)") }
      }
    }
    for worker in workers { worker.join() }
  }

  @Test("without a key bytes are refused, and an offset beyond any file is an error")
  func refusals() throws {
    let closed = EncryptedStorage(MemoryStorage(path: "/m"), cipher: nil)
    #expect(throws: StorageError.encrypted(path: "/m")) { try read(closed, 0, 512) }
    #expect(throws: StorageError.encrypted(path: "/m")) {
      try closed.write([1].rawSpan, at: .zero, intent: .data)
    }
    let open = EncryptedStorage(MemoryStorage(), cipher: try cipher(Self.forms[0]))
    #expect(throws: StorageError.self) {
      try open.write([1, 2].rawSpan, at: HostOffset(UInt64.max), intent: .data)
    }
    #expect(throws: StorageError.self) {
      try open.write([1].rawSpan, at: HostOffset(UInt64(Int64.max)), intent: .data)
    }
    #expect(throws: StorageError.self) {
      try open.discard(at: HostOffset(UInt64.max - 5), length: 10)
    }
  }
}
