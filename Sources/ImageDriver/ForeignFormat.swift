package import BlockIO
internal import HostSystem

// Images of other programs. None of them is opened; they are recognised so that the refusal can say
// what the file is and which command makes a qcow2 image of it. Most begin with a magic; a fixed VHD
// and a DMG have theirs in the last sector.

/// An image format that QEMU reads and chainfs does not, by QEMU's name for it.
package enum ForeignFormat: String, Sendable, CaseIterable {
  case vmdk, vhdx, vpc, vdi, qed, qcow, parallels, bochs, cloop, dmg, luks

  /// What people call the format.
  package var name: String {
    switch self {
    case .vmdk, .vhdx, .vdi, .qed, .dmg: rawValue.uppercased()
    case .vpc: "VHD"
    case .qcow: "qcow version 1"
    case .parallels: "Parallels"
    case .bochs: "Bochs"
    case .cloop: "cloop"
    case .luks: "raw LUKS"
    }
  }

  /// What the file is, and the command that makes a qcow2 image of it.
  package func advice(for path: String) -> String {
    "a \(name) image; make a qcow2 image of it with: \(conversion(of: path))"
  }

  /// The command that makes `PATH.qcow2` of an image.
  package func conversion(of path: String) -> String {
    let output = ShellWord(path + ".qcow2")
    guard self == .luks else {
      return "qemu-img convert -f \(rawValue) -O qcow2 \(ShellWord(path)) \(output)"
    }
    let image = ShellWord("driver=luks,key-secret=s,file.filename=\(path)")
    return "qemu-img convert --object secret,id=s,file=PASSPHRASE-FILE --image-opts \(image)"
      + " -O qcow2 \(output)"
  }

  /// The format that a file has by its magic, nil if it is none of these.
  package static func recognized(
    in storage: any BlockStorage
  ) throws(ImageError) -> ForeignFormat? {
    let head = try sector(of: storage, at: 0)
    // What a guest wrote may lie at the end of a qcow2 image.
    if try Qcow2Image.isQcow2(storage), !ForeignFormat.qcow.begins(head) { return nil }
    if let format = allCases.first(where: { $0.begins(head) }) { return format }
    let size = try onStorage { () throws(StorageError) in try storage.size() }
    guard size >= 512 else { return nil }
    let tail = try sector(of: storage, at: size - 512)
    if tail.starts(with: "conectix".utf8) { return .vpc }
    return tail.starts(with: "koly".utf8) ? .dmg : nil
  }

  /// Whether a file of this format begins so.
  private func begins(_ head: [UInt8]) -> Bool {
    switch self {
    case .vmdk:
      head.starts(with: "KDMV".utf8) || head.starts(with: "COWD".utf8)
        || head.starts(with: "# Disk DescriptorFile".utf8)
    case .vhdx: head.starts(with: "vhdxfile".utf8)
    case .vpc: head.starts(with: "conectix".utf8)
    case .vdi: head.dropFirst(0x40).starts(with: [0x7f, 0x10, 0xda, 0xbe])
    case .qed: head.starts(with: [0x51, 0x45, 0x44, 0])
    case .qcow: head.starts(with: [0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 1])
    case .parallels:
      head.starts(with: "WithoutFreeSpace".utf8) || head.starts(with: "WithouFreSpacExt".utf8)
    case .bochs: head.starts(with: "Bochs Virtual HD Image".utf8)
    case .cloop: head.starts(with: "#!/bin/sh\n#V2.0 Format\n".utf8)
    case .dmg: false
    case .luks: head.starts(with: [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe])
    }
  }

  /// 512 bytes, or what the file has of them.
  private static func sector(
    of storage: any BlockStorage, at offset: UInt64
  ) throws(ImageError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 512)
    let found = try onStorage { () throws(StorageError) in
      var span = bytes.mutableRawSpan
      return try storage.read(into: &span, at: HostOffset(offset))
    }
    return Array(bytes[..<found])
  }
}
