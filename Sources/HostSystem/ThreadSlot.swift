internal import CHost

/// Memory that belongs to the calling thread and goes with it.
///
/// Slot 0 is the request buffer of Fuse, 1 to 5 are BlockIO's scratch, 6 is Fuse's request device.
package enum ThreadSlot {
  /// What the calling thread keeps in a slot, nil at first.
  package static func memory(_ slot: Int32) -> UnsafeMutableRawPointer? {
    // Alive: as long as the thread keeps it there; that is the caller's own doing.
    unsafe chainfs_thread_slot_get(slot)
  }

  /// Puts memory from malloc or aligned_alloc into a slot; what was there is freed, and this will be
  /// when the thread ends.
  package static func keep(_ memory: UnsafeMutableRawPointer, in slot: Int32) {
    // Alive: from here on the slot owns it.
    let status = unsafe chainfs_thread_slot_set(slot, memory)
    precondition(status == 0, "no such thread slot, or no memory for it")
  }
}
