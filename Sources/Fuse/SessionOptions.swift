/// Who may use the mount besides the one who made it.
package enum MountAccess: Sendable {
  /// Nobody, not even root.
  case ownerOnly
  /// Root.
  case root
  /// Everybody, as far as the permission bits go.
  case everybody
}

/// Who compares permission bits with the caller.
package enum PermissionChecks: Sendable {
  /// The kernel, before a request is made.
  case kernel
  /// The file system, in `Operations.checkAccess` and `open`.
  case fileSystem
}

/// Whether the kernel collects writes to cached files before it sends them.
package enum WritebackCaching: Sendable {
  case disabled
  case enabled
}

/// When the threads that serve are started.
package enum ThreadStarting: Sendable {
  /// As they are needed.
  case onDemand
  /// All at the beginning, with their buffers, so that serving needs no memory.
  case atOnce
}

/// How requests come from the kernel.
package enum RequestTransport: Sendable {
  /// Each is read from /dev/fuse, by a thread that waits for it.
  case device
  /// Through io_uring, where libfuse and the kernel both can and the threads start on demand; otherwise
  /// by the device. See <doc:RequestsByRing>.
  case ringsIfOffered
}

/// How a file system is mounted and served. There is no way to pass other options through.
package struct SessionOptions: Sendable {
  /// What stands in the first column of /proc/mounts.
  package var source: String
  /// Who may use the mount.
  package var access = MountAccess.ownerOnly
  /// Who checks permissions.
  package var permissionChecks = PermissionChecks.kernel
  /// Whether the kernel may collect writes.
  package var writeback = WritebackCaching.disabled
  /// The most bytes that one request reads. Of a file that the kernel caches, a read past its cache asks
  /// for the parts of more than that all at once, so that several threads bring them.
  package var largestRead = Self.largestRequest
  /// The largest number of threads that take requests.
  package var threads: Int
  /// When they are started.
  package var starting = ThreadStarting.onDemand
  /// How requests come.
  package var transport = RequestTransport.device

  /// The most bytes that any request carries.
  package static let largestRequest = ThreadBuffer.capacity

  /// Options with defaults for everything but the name and the threads.
  package init(source: String, threads: Int) {
    self.source = source
    self.threads = threads
  }

  /// The options as libfuse and the kernel take them. The kernel wants the largest read here and
  /// again when the connection is set up.
  var mountArguments: [String] {
    var arguments = ["chainfs"]
    func add(_ option: String) { arguments += ["-o", option] }
    add("fsname=" + escaped(source))
    add("subtype=" + MountPoint.subtype)
    add("max_read=\(largestRead)")
    switch access {
    case .ownerOnly: break
    case .root: add("allow_root")
    case .everybody: add("allow_other")
    }
    if permissionChecks == .kernel { add("default_permissions") }
    if usesRings {
      add("io_uring")
      add("io_uring_q_depth=\(RingThreads.placesOfRing)")
    }
    return arguments
  }

  /// Rings have buffers that are not there before they are used, so they go with threads on demand only.
  private var usesRings: Bool {
    transport == .ringsIfOffered && starting == .onDemand && RingThreads.arePossible
  }

  /// A value in which a comma does not end the option.
  private func escaped(_ value: String) -> String {
    value.reduce(into: "") { result, character in
      if character == "," || character == "\\" { result.append("\\") }
      result.append(character)
    }
  }
}
