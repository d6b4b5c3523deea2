import TestSupport
import Testing

/// One kind of image that qemu-img can make: how, and how much it holds.
struct ImageForm: CustomTestStringConvertible, Sendable {
  var options: String
  var isCompressed = false
  var backing = Backing.none

  /// What is below the image.
  enum Backing: String, CaseIterable, Sendable {
    case none, same, shorter, longer, raw, json, chain
  }

  var testDescription: String {
    "\(options.isEmpty ? "defaults" : options)\(isCompressed ? ", compressed" : ""), "
      + "backing: \(backing.rawValue)"
  }

  static let clusterSizes = ["512", "1k", "4k", "16k", "64k", "256k", "2M"]

  /// Every bound of each option once, and each option with each relation to a backing file.
  static let all: [ImageForm] =
    clusterSizes.map { ImageForm(options: "cluster_size=\($0)") }
    + clusterSizes.map { ImageForm(options: "compat=0.10,cluster_size=\($0)", backing: .same) }
    + [1, 2, 4, 8, 16, 32, 64].map {
      ImageForm(options: "refcount_bits=\($0)", backing: .shorter)
    }
    + ["zlib", "zstd"].flatMap { kind in
      ["4k", "64k", "2M"].map {
        ImageForm(
          options: "compression_type=\(kind),cluster_size=\($0)", isCompressed: true,
          backing: .longer)
      }
    }
    + ["metadata", "falloc", "full"].map { ImageForm(options: "preallocation=\($0)") }
    + [ImageForm(options: "lazy_refcounts=on", backing: .chain)]
    + Backing.allCases.flatMap { backing in
      ["", "compat=0.10", "cluster_size=1k,refcount_bits=64", "extended_l2=on"].map {
        ImageForm(options: $0, backing: backing)
      }
    }

  static let mebibytes = 8

  /// Makes `top.qcow2` of this form in the box, and `expected.raw`, the disk it has to show.
  func make(in box: Sandbox) throws {
    let size = Self.mebibytes
    let flags =
      switch backing {
      case .none: ""
      case .raw: "-b base.raw -F raw"
      case .json:
        "-F qcow2 -b 'json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\","
          + "\"filename\":\"base.qcow2\"}}'"
      default: "-b base.qcow2 -F qcow2"
      }
    let baseSize =
      switch backing {
      case .shorter: size - 3
      case .longer: size + 5
      default: size
      }
    try box.run(
      """
      head -c \(baseSize << 20) /dev/urandom > noise
      dd if=/dev/zero of=noise bs=1M seek=1 count=1 conv=notrunc 2>/dev/null
      cp noise base.raw
      qemu-img convert -f raw -O qcow2 -o cluster_size=32k noise base.qcow2
      """)
    if backing == .chain {
      try box.run(
        """
        mv base.qcow2 bottom.qcow2
        qemu-img create -q -f qcow2 -b bottom.qcow2 -F qcow2 -o cluster_size=4k middle.qcow2 5M
        qemu-io -f qcow2 -c 'write -q -P 3 3000k 77k' -c 'write -q -z 1k 9k' middle.qcow2
        qemu-img create -q -f qcow2 -b middle.qcow2 -F qcow2 base.qcow2 \(size)M
        qemu-io -f qcow2 -c 'write -q -P 4 6M 123k' base.qcow2
        """)
    }
    if isCompressed {
      try box.run("qemu-img convert -c -O qcow2 -o \(options) base.qcow2 top.qcow2")
    } else {
      let words = options.isEmpty ? "" : "-o \(options)"
      try box.run("qemu-img create -q -f qcow2 \(words) \(flags) top.qcow2 \(size)M")
    }
    try box.run(
      """
      qemu-io -f qcow2 -c 'write -q -P 1 10k 3k' -c 'write -q -P 2 1023k 70k' \
        -c 'write -q -z 2M 100k' -c 'write -q -z -u 2500k 64k' -c 'discard -q 3M 192k' \
        -c 'write -q -P 6 \(size * 1024 - 1)k 1k' top.qcow2
      qemu-img convert -O raw top.qcow2 expected.raw
      """)
  }
}
