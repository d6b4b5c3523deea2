import TestSupport

/// Changes of an input of the image target that keep its steps whole.
enum ImageMutation {
  private static let header = 2
  private static let stepLimit = 24

  /// Values that mean something in a field or an entry.
  private static let values: [UInt64] = [
    0, 1, 2, 3, 1 << 63, 1 << 62, 1 << 32, 0xffff_ffff, .max, 1 << 63 | 1, 512, 1 << 63 | 1024,
    1 << 55, 1 << 31, 1 << 63 | 4096, 0x8000_0000_0000_8000, 5 << 60,
  ]

  /// Another input.
  static func mutate(_ bytes: [UInt8], seed: UInt64) -> [UInt8] {
    var random = SeededGenerator(seed: seed)
    var head = Array(bytes.prefix(header))
    head += [UInt8](repeating: 0, count: header - head.count)
    var steps = bytes.dropFirst(header).chunks(of: ImageStep.byteCount)
    for _ in 0..<Int.random(in: 1...3, using: &random) { change(&head, &steps, &random) }
    return head + steps.prefix(stepLimit).joined()
  }

  private static func change(
    _ head: inout [UInt8], _ steps: inout [[UInt8]], _ random: inout SeededGenerator
  ) {
    let place = steps.indices.randomElement(using: &random)
    switch (Int.random(in: 0..<12, using: &random), place) {
    case (0, _):
      head[0] = .random(in: 0..<UInt8(ImageForm.all.count), using: &random)
    case (1, _): head[1] = .random(in: .min ... .max, using: &random)
    case (2, let place?): steps.remove(at: place)
    case (3, let place?): steps.swapAt(place, steps.indices.randomElement(using: &random) ?? place)
    case (4, let place?): steps.insert(steps[place], at: place)
    case (5, let place?): steps[place][1] = .random(in: 0..<32, using: &random)
    case (6, let place?): steps[place][2] = .random(in: .min ... .max, using: &random)
    case (7, let place?):
      let bit = Int.random(in: 0..<64, using: &random)
      steps[place][4 + bit / 8] ^= 1 << UInt8(bit % 8)
    default:
      let at = Int.random(in: 0...steps.count, using: &random)
      steps.insert(step(&random), at: at)
    }
  }

  private static func step(_ random: inout SeededGenerator) -> [UInt8] {
    var value = values.randomElement(using: &random) ?? 0
    // Damage of one bit, half of the time; else a small number, such as an offset in the file.
    if random.oneIn(2) { value = 1 << UInt64.random(in: 0..<64, using: &random) }
    if random.oneIn(4) { value = UInt64.random(in: 0..<1 << 16, using: &random) }
    var kind = UInt8.random(in: 0..<8, using: &random)
    if random.oneIn(2) { kind = 128 | .random(in: 0..<16, using: &random) }
    let index = UInt16.random(in: 0..<(random.oneIn(3) ? 512 : 16), using: &random)
    return [kind, .random(in: 0..<32, using: &random)]
      + withUnsafeBytes(of: index.littleEndian) { Array($0) }
      + withUnsafeBytes(of: value.littleEndian) { Array($0) }
  }
}

extension ArraySlice<UInt8> {
  /// Pieces of one length; the last is filled up with zeroes.
  fileprivate func chunks(of length: Int) -> [[UInt8]] {
    stride(from: startIndex, to: endIndex, by: length).map { start in
      let piece = Array(self[start..<Swift.min(start + length, endIndex)])
      return piece + [UInt8](repeating: 0, count: length - piece.count)
    }
  }
}
