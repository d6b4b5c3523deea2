// QEMU's locks on an image file, so that both see each other.
//
// A user of an image has permissions that it uses and permissions that it does not share. Each is one
// byte of the file, locked shared on the open file (OFD), so several users may hold the same byte:
//
//     byte 100 + i    I use permission i
//     byte 200 + i    nobody else may use permission i
//
//     i = 0 consistent read, 1 write, 2 write unchanged, 3 resize
//
// First all bytes are locked, then the opposite ones are looked at: for a permission used, 200 + i,
// for one not shared, 100 + i. A byte that another open file holds is a conflict, and what was locked
// is given back. Locking before looking means that of two who start together at least one sees the other.
//
// The kernel drops the locks when the file is closed, also after a crash. A lock that stands in the
// way therefore belongs to a living process, and /proc tells which.

internal import Glibc
internal import HostSystem

/// A permission on an image, in QEMU's order.
enum ImagePermission: Int64, CaseIterable {
  case consistentRead
  case write
  case writeUnchanged
  case resize

  /// QEMU's word for it.
  var name: String {
    switch self {
    case .consistentRead: "consistent read"
    case .write: "write"
    case .writeUnchanged: "write unchanged"
    case .resize: "resize"
    }
  }

  /// The byte that says "I use it".
  var useByte: Int64 { 100 + rawValue }
  /// The byte that says "nobody else may use it".
  var refuseByte: Int64 { 200 + rawValue }
}

/// What a user of an image does with it, and what it does not let others do.
struct ImageLock: Equatable {
  /// What it does.
  var used: [ImagePermission]
  /// What others may not do.
  var unshared: [ImagePermission]

  /// No locks.
  static let none = ImageLock(used: [], unshared: [])
  /// The writable top of a chain.
  static let active = ImageLock(
    used: [.consistentRead, .write, .writeUnchanged, .resize], unshared: [.write, .resize])
  /// An image that is read and must not change.
  static let backing = ImageLock(used: [.consistentRead], unshared: [.write, .resize])

  /// The bytes that are locked for this.
  var bytes: [Int64] { used.map(\.useByte) + unshared.map(\.refuseByte) }

  /// Changes the locks on an open file from `self` to `next`, or throws and leaves them as they were.
  func change(
    to next: ImageLock, descriptor: Int32, path: String
  ) throws(StorageError) {
    let added = next.bytes.filter { !bytes.contains($0) }
    do throws(StorageError) {
      for byte in added {
        do throws(SystemError) {
          try SystemCall.shareByte(descriptor, byte)
        } catch {
          throw .system(path: path, error)
        }
      }
      try next.checkOthers(descriptor: descriptor, path: path)
    } catch {
      Self.release(added, descriptor: descriptor)
      throw error
    }
    Self.release(bytes.filter { !next.bytes.contains($0) }, descriptor: descriptor)
  }

  /// Gives back all locks on an open file but those that `kept` has too. Nobody can stand in the way of
  /// that: whoever has less than it had asks for nothing.
  mutating func giveBack(allBut kept: ImageLock, descriptor: Int32) {
    Self.release(bytes.filter { !kept.bytes.contains($0) }, descriptor: descriptor)
    used.removeAll { !kept.used.contains($0) }
    unshared.removeAll { !kept.unshared.contains($0) }
  }

  /// Becomes `next` on an open file while `other`, which another open file of ours has on the same file,
  /// becomes none; or throws and leaves both as they were.
  mutating func takeOver(
    _ next: ImageLock, from other: inout ImageLock, of otherDescriptor: Int32, descriptor: Int32,
    path: String
  ) throws(StorageError) {
    precondition(self == .none, "locks are taken over beside others")
    do throws(StorageError) {
      for byte in next.bytes {
        do throws(SystemError) { try SystemCall.shareByte(descriptor, byte) } catch {
          throw .system(path: path, error)
        }
      }
    } catch {
      Self.release(next.bytes, descriptor: descriptor)
      throw error
    }
    let before = other
    other = .none
    do throws(StorageError) {
      // Order: ours stand before the other's go; a stranger sees one of the two at any moment.
      for byte in before.bytes {
        // One that stays would look like a stranger's.
        do throws(SystemError) { try SystemCall.unlockByte(otherDescriptor, byte) } catch {
          throw .system(path: path, error)
        }
      }
      try next.checkOthers(descriptor: descriptor, path: path)
    } catch {
      other.set(before, descriptor: otherDescriptor)
      Self.release(next.bytes, descriptor: descriptor)
      throw error
    }
    self = next
  }

  /// Becomes `next` on an open file without looking at others, which have been kept off all the time.
  mutating func set(_ next: ImageLock, descriptor: Int32) {
    for byte in next.bytes where !bytes.contains(byte) {
      // The kernel has just been given as many back, and nobody's shared lock stands in the way.
      do throws(SystemError) { try SystemCall.shareByte(descriptor, byte) } catch {}
    }
    self = next
  }

  /// Throws if another open file stands in the way.
  private func checkOthers(descriptor: Int32, path: String) throws(StorageError) {
    for permission in used {
      try check(permission, .use, permission.refuseByte, descriptor: descriptor, path: path)
    }
    for permission in unshared {
      try check(permission, .share, permission.useByte, descriptor: descriptor, path: path)
    }
  }

  private func check(
    _ permission: ImagePermission, _ refusal: LockConflict.Refusal, _ byte: Int64,
    descriptor: Int32, path: String
  ) throws(StorageError) {
    do throws(SystemError) {
      if try !SystemCall.isByteHeldElsewhere(descriptor, byte) { return }
    } catch {
      throw .system(path: path, error)
    }
    let holder = LockHolder.find(byte: byte, descriptor: descriptor)
    throw .locked(
      path: path,
      conflict: LockConflict(permission: permission.name, refusal: refusal, holder: holder))
  }

  private static func release(_ bytes: [Int64], descriptor: Int32) {
    for byte in bytes {
      // A lock that cannot be given back goes with the file at the latest.
      do throws(SystemError) { try SystemCall.unlockByte(descriptor, byte) } catch {}
    }
  }
}

extension StorageError {
  /// The kernel, or the file system, has no OFD locks at all.
  var meansNoLocks: Bool {
    switch self {
    case .system(_, let cause):
      cause.call == "fcntl" && [EINVAL, EOPNOTSUPP, ENOLCK, ENOSYS].contains(cause.number)
    case .locked, .truncated, .readOnly, .flushFailed, .outOfRange, .encrypted, .notAFile,
      .servedHere:
      false
    }
  }
}
