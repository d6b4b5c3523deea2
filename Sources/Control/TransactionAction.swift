/// One action of QMP's transaction.
package enum TransactionAction: Sendable, Equatable {
  /// The types of actions that QEMU knows.
  package enum Kind: String, Sendable, CaseIterable {
    case abort
    case bitmapAdd = "block-dirty-bitmap-add"
    case bitmapRemove = "block-dirty-bitmap-remove"
    case bitmapClear = "block-dirty-bitmap-clear"
    case bitmapEnable = "block-dirty-bitmap-enable"
    case bitmapDisable = "block-dirty-bitmap-disable"
    case bitmapMerge = "block-dirty-bitmap-merge"
    case backup = "blockdev-backup"
    case snapshotOfNodes = "blockdev-snapshot"
    case internalSnapshot = "blockdev-snapshot-internal-sync"
    case snapshot = "blockdev-snapshot-sync"
    case driveBackup = "drive-backup"
  }

  /// Takes a snapshot.
  case snapshot(SnapshotOrder)
  /// Makes the whole transaction fail.
  case abort
  /// What is not done here.
  case missing(Kind)
}
