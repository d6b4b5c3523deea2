import TestSupport
import Testing

@Suite("Hostile bytes")
struct FuzzTests {
  @Test("every input that is kept leaves all claims true", arguments: FuzzTarget.allCases)
  func replay(target: FuzzTarget) throws {
    let inputs = try Corpus.inputs(of: target)
    #expect(!inputs.isEmpty)
    for input in inputs {
      do { try target.run(input.bytes) } catch {
        Issue.record("\(target.rawValue), \(input.name): \(error)")
      }
    }
  }

  @Test("QEMU's images, damaged at random, leave all claims true")
  func damaged() throws {
    var random = Seed.generator("damaged images")
    for form in ImageForm.all.indices {
      for _ in 0..<6 {
        var input: [UInt8] = [UInt8(form), 0]
        for _ in 0..<6 {
          input = ImageMutation.mutate(input, seed: random.next())
          input[0] = UInt8(form)
        }
        do { try FuzzTarget.image.run(input) } catch {
          Issue.record("\(ImageForm.all[form].name), \(input): \(error)")
        }
      }
    }
  }

  @Test("random bytes leave all claims true", arguments: FuzzTarget.allCases)
  func random(target: FuzzTarget) throws {
    var random = Seed.generator("random bytes for \(target.rawValue)")
    for input in try Corpus.inputs(of: target) {
      var bytes = input.bytes
      if bytes.isEmpty { continue }
      for _ in 0..<(target == .image || target == .file ? 1 : 10) {
        let place = Int.random(in: bytes.indices, using: &random)
        bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
        do { try target.run(bytes) } catch {
          Issue.record("\(target.rawValue), \(bytes): \(error)")
        }
      }
    }
  }
}
