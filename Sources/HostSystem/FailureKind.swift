/// What went wrong, in the few words that upper layers act on without knowing lower errors.
///
/// Filesystem turns a kind back into errno, Control into a sentence's tone; nobody else needs more.
package enum FailureKind: String, Sendable, Hashable, CaseIterable {
  /// The request itself makes no sense.
  case invalid
  /// Somebody else holds what is needed.
  case busy
  /// The named thing does not exist.
  case notFound
  /// The thing, or its file system, is read-only.
  case readOnly
  /// The thing to be made is there already.
  case exists
  /// The disk, the quota or the image is full.
  case noSpace
  /// The host, the format or the image cannot do this.
  case unsupported
  /// The operation is refused whoever asks.
  case notPermitted
  /// The caller lacks the rights.
  case accessDenied
  /// Bytes on disk contradict themselves.
  case corrupt
  /// The device below failed.
  case io
  /// A size or an offset is over the limit.
  case tooLarge
  /// The wait was broken off.
  case interrupted
  /// A directory still has entries.
  case notEmpty
  /// Names lead back to themselves.
  case loop
}
