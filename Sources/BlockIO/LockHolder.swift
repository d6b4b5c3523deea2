internal import Glibc
internal import HostSystem

extension LockHolder {
  /// The process that holds a lock on `byte` of the file open as `descriptor`, if /proc shows it.
  ///
  /// The kernel names no process for an OFD lock. So every process's open files are asked: is it the
  /// same inode, and does its fdinfo list a lock over the byte? Processes of others, in other
  /// namespaces, or gone meanwhile, are skipped.
  static func find(byte: Int64, descriptor: Int32) -> LockHolder? {
    do throws(SystemError) {
      let file = try SystemCall.status(of: descriptor)
      for name in try SystemCall.names(inDirectory: "/proc") {
        guard let process = Int32(name) else { continue }
        let own = process == getpid() ? descriptor : -1
        if holds(process, byte: byte, of: file, except: own) {
          return LockHolder(process: process, command: command(of: process))
        }
      }
    } catch {
      // Without /proc nobody can be named; the conflict itself is reported all the same.
    }
    return nil
  }

  private static func holds(
    _ process: Int32, byte: Int64, of file: FileStatus, except own: Int32
  ) -> Bool {
    let base = "/proc/\(process)"
    do throws(SystemError) {
      for name in try SystemCall.names(inDirectory: "\(base)/fd") where name != "\(own)" {
        // A file that was closed meanwhile is not the one.
        guard let other = status("\(base)/fd/\(name)") else { continue }
        if other.inode != file.inode || other.device != file.device { continue }
        guard let info = try AtomicFile.contents(of: "\(base)/fdinfo/\(name)", limit: 1 << 16)
        else {
          continue
        }
        let lines = String(decoding: info, as: UTF8.self).split(separator: "\n")
        if lines.contains(where: { covers($0, byte: byte) }) { return true }
      }
    } catch {
      // Not ours to look into, or gone.
    }
    return false
  }

  private static func status(_ path: String) -> FileStatus? {
    do throws(SystemError) { return try SystemCall.status(ofPath: path) } catch { return nil }
  }

  /// A line such as `lock:  1: OFDLCK  ADVISORY  READ -1 fe:00:1234 100 103` covers the byte.
  static func covers(_ line: Substring, byte: Int64) -> Bool {
    let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
    guard words.first == "lock:", words.count >= 4, let first = Int64(words[words.count - 2])
    else { return false }
    let last = words[words.count - 1] == "EOF" ? Int64.max : Int64(words[words.count - 1])
    guard let last else { return false }
    return first <= byte && byte <= last
  }

  private static func command(of process: Int32) -> String {
    do throws(SystemError) {
      let bytes = try AtomicFile.contents(of: "/proc/\(process)/comm", limit: 256) ?? []
      return String(decoding: bytes.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
    } catch {
      return "process"
    }
  }
}
