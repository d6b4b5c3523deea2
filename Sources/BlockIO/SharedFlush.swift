// One fdatasync for all who ask at the same time, and a memory for the one that failed.
//
// A flush covers the writes that returned before it began. Whoever asks while one runs needs another
// one, but all of those share it:
//
//     A asks   ----[ flush 1 ]
//     B, C ask       ..........[ flush 2 ]      one for both
//
// After a failure the kernel takes the pages for clean, so a later fdatasync would say "fine" about
// bytes that are gone. Hence the first failure is the answer to everybody from then on, also to those
// who waited for that very flush.

internal import HostSystem

/// Runs flushes one at a time, shares them, and never forgets a failure.
final class SharedFlush: Sendable {
  private struct State {
    var isRunning = false
    var started: UInt64 = 0
    var finished: UInt64 = 0
    var failure: SystemError?
  }

  private let state = Monitor(State())

  /// The first failure, nil as long as all went well.
  var failure: SystemError? { state.withLock { $0.failure } }

  /// Returns once a flush that began after this call has succeeded; `body` may run, or another's.
  func run(_ body: () throws(SystemError) -> Void) throws(SystemError) {
    let needed = state.withLock { $0.started + 1 }
    let isMine = state.wait { state -> Bool? in
      if state.failure != nil || state.finished >= needed { return false }
      if state.isRunning { return nil }
      state.isRunning = true
      state.started += 1
      return true
    }
    if isMine == true {
      var outcome: SystemError?
      do throws(SystemError) { try body() } catch { outcome = error }
      let failure = outcome
      state.change { state in
        state.isRunning = false
        state.finished = state.started
        if state.failure == nil { state.failure = failure }
      }
    }
    if let failure { throw failure }
  }
}
