// What a file stands on.
//
// A file system lies on a block device. That may be a part of a disk, or be made of other devices, or be a
// loop device, which is a file again:
//
//     /fs/new.qcow2 --lies on--> dm-0 --made of--> loop3p1 --part of--> loop3 --shows--> /mnt/vda
//
// The kernel tells the way down in /sys/dev/block; what it does not tell is taken for the ground.
//
// Given up: file systems that lie on no device of their own number (btrfs, overlayfs, those of a network or
// of another program), and loop devices whose file another mount namespace sees by another path.

/// The files that are below other files.
package enum BlockDevices {
  /// The first file below `path`, or it itself, that `isWanted` says yes to; nil if there is none, or
  /// nothing is at the path. It is asked with a path, and then with the number of the device that holds it.
  package static func file(
    under path: String, _ isWanted: (_ path: String, _ device: UInt64?) -> Bool
  ) -> String? {
    var seen: Set<String> = []
    return file(under: path, &seen, isWanted)
  }

  private static func file(
    under path: String, _ seen: inout Set<String>, _ isWanted: (String, UInt64?) -> Bool
  ) -> String? {
    if isWanted(path, nil) { return path }
    let status: FileStatus
    do throws(SystemError) { status = try SystemCall.status(ofPath: path) } catch { return nil }
    if isWanted(path, status.device) { return path }
    let device = status.sort == .blockDevice ? status.represented : status.device
    return file(underDevice: name(of: device), &seen, isWanted)
  }

  private static func file(
    underDevice name: String, _ seen: inout Set<String>, _ isWanted: (String, UInt64?) -> Bool
  ) -> String? {
    // Devices do not go round in circles; a kernel that says so is not followed for ever.
    guard seen.insert(name).inserted else { return nil }
    do throws(SystemError) {
      let place = try SystemCall.canonicalPath(of: "/sys/dev/block/" + name)
      if let file = try line(of: place + "/loop/backing_file") {
        return Self.file(under: file, &seen, isWanted)
      }
      var parts: [String] = []
      if try line(of: place + "/partition") != nil {
        parts.append(place + "/..")
      } else {
        let slaves = place + "/slaves"
        parts += try SystemCall.names(inDirectory: slaves).map { "\(slaves)/\($0)" }
      }
      for part in parts {
        guard let device = try line(of: part + "/dev") else { continue }
        if let file = file(underDevice: device, &seen, isWanted) { return file }
      }
    } catch { return nil }
    return nil
  }

  private static func line(of path: String) throws(SystemError) -> String? {
    guard let bytes = try AtomicFile.contents(of: path, limit: 8192) else { return nil }
    let text = String(decoding: bytes, as: UTF8.self)
    return text.last == "\n" ? String(text.dropLast()) : text
  }

  /// Major and minor number, as the kernel writes them.
  package static func name(of device: UInt64) -> String {
    let major = device >> 8 & 0xfff | device >> 32 & 0xffff_f000
    let minor = device & 0xff | device >> 12 & 0xffff_ff00
    return "\(major):\(minor)"
  }
}
