internal import CFuse
internal import Glibc
internal import HostSystem

// Where a worker takes its requests from, and where their answers have to go.
//
// Each worker has a clone of the session's descriptor of /dev/fuse, with a queue of its own in the
// kernel. The kernel looks for a request only among those that were read from the descriptor which
// the answer is written to. libfuse is told of the session's descriptor alone; `connect` puts two
// calls in between that use the calling thread's device instead.
//
// A reply that another thread gives (ParkedReply) is given inside `answering`. The device is held
// until then: the number of a closed descriptor may be anybody's, an image file's too.

/// A worker's own descriptor of a session.
final class RequestDevice: Sendable {
  /// What the calling thread uses instead of a session's descriptor.
  @safe private struct Current {
    var session: Int32 = -1
    var own: Int32 = -1
    var device: Unmanaged<RequestDevice>?
  }

  /// HostSystem's list of slots gives this one to Fuse.
  private static let slot: Int32 = 6

  private let session: Int32
  private let clone: OwnedDescriptor

  /// Clones a session's descriptor; nil where the kernel has no more to give, and the session's own
  /// has to do.
  init?(session: Int32) {
    let raw = chainfs_clone_device(session)
    if raw < 0 { return nil }
    self.session = session
    clone = OwnedDescriptor(taking: raw)
  }

  /// The device that the calling thread answers by, nil for the session's descriptor.
  static var current: RequestDevice? {
    // Alive: `answering` holds the device as long as it stands here.
    guard let device = unsafe place()?.pointee.device else { return nil }
    return unsafe device.takeUnretainedValue()
  }

  /// Runs `body`, in which the calling thread takes requests from this device and answers by it.
  func answering<Result>(_ body: () -> Result) -> Result {
    let place = unsafe Self.place() ?? Self.makePlace()
    let earlier = unsafe place.pointee
    // Alive: this call holds the device, and puts back what was there before.
    unsafe place.pointee = Current(
      session: session, own: clone.raw, device: Unmanaged.passUnretained(self))
    defer { unsafe place.pointee = earlier }
    return body()
  }

  /// Leads a session's reads and writes to the calling thread's device; gives 0 or an errno, ENOTSUP where
  /// libfuse was built without such a way: then no device may be used.
  static func connect(_ session: OpaquePointer) -> Int32 {
    var calls = fuse_custom_io()
    // Alive: a worker's memory, or libfuse's own, for the length of the call. libfuse reads errno when the
    // call has returned, so nothing comes after it.
    unsafe calls.read = { session, bytes, count, _ in
      // In bounds: a newer libfuse would read more than it asked the kernel for.
      let most = min(count, RequestMemory.capacity)
      return unsafe Glibc.read(RequestDevice.descriptor(insteadOf: session), bytes, most)
    }
    unsafe calls.writev = { session, parts, count, _ in
      unsafe Glibc.writev(RequestDevice.descriptor(insteadOf: session), parts, count)
    }
    // Copied by libfuse.
    return LibraryLog.collecting {
      unsafe -chainfs_session_io(session, &calls, fuse_session_fd(session))
    }.result
  }

  private static func descriptor(insteadOf session: Int32) -> Int32 {
    guard let place = unsafe place(), unsafe place.pointee.session == session else {
      return session
    }
    return unsafe place.pointee.own
  }

  private static func place() -> UnsafeMutablePointer<Current>? {
    // Alive: the memory is the thread's, and holds a Current since it was made.
    unsafe ThreadSlot.memory(slot)?.assumingMemoryBound(to: Current.self)
  }

  private static func makePlace() -> UnsafeMutablePointer<Current> {
    guard let memory = unsafe malloc(MemoryLayout<Current>.size) else {
      preconditionFailure("no memory for a thread")
    }
    // In bounds: the memory was made for one Current, which holds nothing that needs an end.
    let place = unsafe memory.initializeMemory(as: Current.self, to: Current())
    unsafe ThreadSlot.keep(memory, in: slot)
    return unsafe place
  }
}
