import Foundation
import HostSystem

/// A thread that writes 1, 2, 3 and so on, each to the next of some devices, once the one before was
/// acknowledged: number n goes to device n - 1 modulo their count, into its next sector.
final class NumberWriter: Sendable {
  private struct State {
    var written: UInt64 = 0
    var failure: Int32 = 0
    var isAsked = false
    var isOver = false
  }

  private let state = Monitor(State())

  /// Opens the devices and begins.
  init(devices: [String], sectors: Int) throws {
    let files = devices.map { open($0, O_WRONLY | O_CLOEXEC) }
    guard files.allSatisfy({ $0 >= 0 }) else { throw CocoaError(.fileNoSuchFile) }
    let state = state
    let thread = Thread {
      var sector = [UInt8](repeating: 0xA5, count: 512)
      var next: UInt64 = 1
      while !state.withLock({ $0.isAsked }) {
        let place = Int(next - 1) / files.count
        if place == sectors { break }
        for byte in 0..<8 { sector[byte] = UInt8(truncatingIfNeeded: next >> UInt64(8 * byte)) }
        let file = files[Int(next - 1) % files.count]
        if pwrite(file, sector, 512, off_t(place * 512)) != 512 {
          let number = errno
          state.withLock { $0.failure = number }
          break
        }
        let written = next
        state.change { $0.written = written }
        next += 1
      }
      for file in files { close(file) }
      state.change { $0.isOver = true }
    }
    thread.start()
  }

  /// The last number that was acknowledged.
  var written: UInt64 { state.withLock { $0.written } }

  /// The errno that ended it, 0 for none.
  var failure: Int32 { state.withLock { $0.failure } }

  /// Waits until a number is acknowledged; false if it is not within half a minute.
  func wait(for number: UInt64) -> Bool {
    let limit = SystemTimeSource().now().advanced(byMilliseconds: 30_000)
    state.wait(until: limit, while: { $0.written < number && !$0.isOver })
    return written >= number
  }

  /// Ends it, and gives the last number.
  func stop() -> UInt64 {
    state.change { $0.isAsked = true }
    state.wait(while: { !$0.isOver })
    return written
  }
}
