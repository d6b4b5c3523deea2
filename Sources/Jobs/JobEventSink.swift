/// Where the events of jobs go.
///
/// Two calls, because the order of events is that of the decisions, which are made under a lock, and
/// whoever waits for an event must not be woken under it.
package protocol JobEventSink: AnyObject, Sendable {
  /// Keeps an event in its place in the order. Lock: called with those of a job held.
  func note(_ event: JobEvent)
  /// Wakes whoever waits. Lock: called with none held.
  func announce()
}
