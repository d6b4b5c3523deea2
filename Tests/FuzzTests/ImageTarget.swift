import HostSystem
import TestSupport

// A whole image, in a few bytes: which form, how it is opened, and what is done to it in turn.
//
//     form | options | 12 bytes | 12 bytes | ...
//
//     kind | place | index 2 | value 8       kinds below 128 damage the file, which is closed before
//                                            the others use the disk, which is opened before
//
// A damage hits an entry of the metadata that the form has when it is whole, so one bit flipped in the
// input is one bit flipped where it means something.

/// One step of what is done to an image.
struct ImageStep {
  var kind: UInt8
  var place: UInt8
  var index: UInt16
  var value: UInt64

  static let byteCount = 12

  init(_ input: inout FuzzInput) {
    kind = input.byte()
    place = input.byte()
    index = input.number16()
    value = input.number64()
  }

  var isDamage: Bool { kind < 128 }

  /// Changes bytes of the metadata.
  func damage(_ content: inout SparseBytes, _ form: ImageForm) {
    let region = form.regions[Int(place) % form.regions.count]
    let width = [8, 8, 4, 2, 1, 8, 8, 8][Int(kind & 7)]
    let offset =
      region.lowerBound + UInt64(Int(index) * width) % (region.upperBound - region.lowerBound)
    let old = Self.number(content.bytes(offset, width))
    let new: UInt64
    switch kind & 7 {
    case 0, 2, 3, 4: new = value
    case 1: new = old ^ value
    case 5: new = old &+ value << 9
    case 6:
      // What another entry says.
      let other = form.regions[Int(value & 255) % form.regions.count]
      let length = other.upperBound - other.lowerBound
      new = Self.number(content.bytes(other.lowerBound + (value >> 8 & 0xfff) * 8 % length, 8))
    default:
      // Long files take long to check, so they are few.
      let longest: UInt64 = kind & 0x78 == 0x78 ? 1 << 26 : 1 << 20
      content.resize(to: (content.count &+ value << 9) & (longest - 1))
      return
    }
    content.put(
      (1...width).map { UInt8(truncatingIfNeeded: new >> UInt64(8 * (width - $0))) }, at: offset)
  }

  private static func number(_ bytes: [UInt8]) -> UInt64 {
    bytes.reduce(0) { $0 << 8 | UInt64($1) }
  }
}

enum ImageTarget {
  /// More steps than this show nothing new.
  private static let stepLimit = 24

  static func run(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    let form = ImageForm.all[Int(input.byte()) % ImageForm.all.count]
    let options = input.byte()
    var content = form.content
    var use: DiskUse?
    var isWhole = true
    for _ in 0..<stepLimit where !input.isEmpty {
      let step = ImageStep(&input)
      if step.isDamage {
        if let open = use {
          try open.close()
          content = open.content
          use = nil
        }
        step.damage(&content, form)
        isWhole = false
      } else {
        if use == nil {
          use = try DiskUse(form.files(content), options: options, isWhole: isWhole)
          if use == nil { return }
        }
        try use?.run(step)
      }
    }
    if use == nil { use = try DiskUse(form.files(content), options: options, isWhole: isWhole) }
    try use?.close()
  }
}

/// The bytes of a whole image file, packed, and then used in every way once.
enum FileTarget {
  static func run(_ bytes: [UInt8]) throws {
    let content = PackedImage.unpack(Array(bytes.prefix(16 << 10)))
    let files = FuzzFiles()
    files.put(ImageForm.path, content)
    guard var use = try DiskUse(files, options: 0x20, isWhole: false) else { return }
    for kind: UInt8 in [1, 2, 3, 5, 6, 4, 12, 13, 7, 1, 9, 10] {
      var step = FuzzInput([128 | kind, 3, UInt8(3 * kind), 0, 3, 0, 9])
      try use.run(ImageStep(&step))
    }
    try use.close()
  }
}
