import Glibc
import HostSystem
import TestSupport
import Testing

@Suite struct SystemCallTests {
  @Test("an interrupted call is made again, and its result is given")
  func retriesInterrupted() throws {
    var attempts = 0
    let result = try SystemCall.retrying("read") { () -> Int in
      attempts += 1
      if attempts < 4 {
        errno = EINTR
        return -1
      }
      return 7
    }
    #expect(result == 7)
    #expect(attempts == 4)
  }

  @Test("another failure is thrown at once, with the call's name and errno")
  func throwsOthers() {
    var attempts = 0
    #expect(throws: SystemError(call: "pwrite", number: ENOSPC)) {
      _ = try SystemCall.retrying("pwrite") { () -> Int32 in
        attempts += 1
        errno = ENOSPC
        return -1
      }
    }
    #expect(attempts == 1)
  }

  @Test(
    "an errno has the meaning that upper layers act on",
    arguments: [
      (EINVAL, FailureKind.invalid), (EBUSY, .busy), (EAGAIN, .busy), (ENOENT, .notFound),
      (EROFS, .readOnly), (EEXIST, .exists), (ENOSPC, .noSpace), (EDQUOT, .noSpace),
      (EOPNOTSUPP, .unsupported), (EXDEV, .unsupported), (EPERM, .notPermitted),
      (EACCES, .accessDenied), (EIO, .io), (EFBIG, .tooLarge), (EINTR, .interrupted),
      (ENOTEMPTY, .notEmpty), (ELOOP, .loop), (EUCLEAN, .corrupt), (ENOMEM, .io),
    ])
  func kinds(number: Int32, kind: FailureKind) {
    #expect(SystemError(call: "call", number: number).kind == kind)
  }

  @Test("an error reads as the call and the system's own words")
  func descriptions() {
    #expect(
      SystemError(call: "open", number: ENOENT).description == "open: No such file or directory")
  }

  @Test("a path with a NUL is refused instead of cut short")
  func refusesNUL() throws {
    let directory = try TemporaryDirectory()
    _ = try SystemCall.open(directory.file("a"), flags: O_CREAT | O_RDWR, mode: 0o600)
    #expect(throws: SystemError(call: "open", number: EINVAL)) {
      _ = try SystemCall.open(directory.file("a\0b"), flags: O_RDONLY)
    }
  }

  @Test("a directory's names are listed without the dots")
  func names() throws {
    let directory = try TemporaryDirectory()
    for name in ["a", "b c", ".d"] {
      _ = try SystemCall.open(directory.file(name), flags: O_CREAT | O_RDWR, mode: 0o600)
    }
    #expect(try SystemCall.names(inDirectory: directory.path).sorted() == [".d", "a", "b c"])
  }

  @Test("a closed descriptor's number is free, and a forgotten one is closed")
  func descriptorsAreClosed() throws {
    let first = try SystemCall.open("/dev/null", flags: O_RDONLY)
    let number = first.raw
    try first.close()
    #expect(fcntl(number, F_GETFD) == -1)
    func forget() throws -> Int32 {
      let second = try SystemCall.open("/dev/null", flags: O_RDONLY)
      return second.raw
    }
    #expect(fcntl(try forget(), F_GETFD) == -1)
  }
}

@Suite struct AtomicFileTests {
  @Test("a file holds its old bytes or its new ones, and nothing else stays beside it")
  func replaces() throws {
    let directory = try TemporaryDirectory()
    let path = directory.file("record")
    #expect(try AtomicFile.contents(of: path, limit: 10) == nil)
    try AtomicFile.replace(path: path, bytes: [1, 2, 3])
    #expect(try AtomicFile.contents(of: path, limit: 10) == [1, 2, 3])
    try AtomicFile.replace(path: path, bytes: [])
    #expect(try AtomicFile.contents(of: path, limit: 10) == [])
    #expect(try SystemCall.names(inDirectory: directory.path) == ["record"])
    try AtomicFile.remove(path: path)
    try AtomicFile.remove(path: path)
    #expect(try AtomicFile.contents(of: path, limit: 10) == nil)
  }

  @Test("a file over the limit can be told by one byte too many")
  func limit() throws {
    let path = try TemporaryDirectory().file("x")
    #expect(throws: SystemError.self) { try AtomicFile.replace(path: path, bytes: [1]) }
    let directory = try TemporaryDirectory()
    try AtomicFile.replace(path: directory.file("y"), bytes: [1, 2, 3, 4])
    #expect(try AtomicFile.contents(of: directory.file("y"), limit: 2)?.count == 3)
  }

  @Test("a link in the draft's place is not written through")
  func draftLink() throws {
    let directory = try TemporaryDirectory()
    try AtomicFile.replace(path: directory.file("victim"), bytes: [9])
    symlink(directory.file("victim"), directory.file("record.new"))
    try AtomicFile.replace(path: directory.file("record"), bytes: [1])
    #expect(try AtomicFile.contents(of: directory.file("victim"), limit: 4) == [9])
    #expect(try AtomicFile.contents(of: directory.file("record"), limit: 4) == [1])
  }
}
