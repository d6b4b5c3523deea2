// What has to be true of the files after a crash at this moment. The session that works on them keeps it up
// to date: before an operation it allows both ends, after it only the new one.

import TestSupport

/// The record of a job, as far as it is known.
struct RecordExpectation: Sendable {
  var speeds: [UInt64]
  var pauses: [Bool]
  /// The path of the layer that is kept.
  var base: String?
  /// The record may be missing although the chain is the old one: the job just starts, or is cancelled.
  var mayBeMissing: Bool
  /// It writes the header by itself.
  var autoFinalize = true
  /// It was told to write the header.
  var isFinalized = false

  /// The header may be the new one.
  var mayHaveEnded: Bool { autoFinalize || isFinalized }
}

/// What a crash may leave.
struct Expectation: Sendable {
  var history: ByteHistory
  /// Sizes of the disk; the history goes up to the last of them.
  var sizes: [Int]
  /// The image to be mounted.
  var path: String
  /// The chains that the image may have, each from the active image down.
  var chains: [[String]]
  /// A job that may have to go on; nil if there is none.
  var record: RecordExpectation?
  /// The image was damaged before the first mount and is not mended yet.
  var isUnsound: Bool
  /// Clusters may be lost for good: nobody looks for them.
  var mayLeak: Bool
  /// Layers that were streamed into while they were below the active image.
  var inner: Set<String> = []
  /// Ends the snapshots of the first top image.
  var snapshots: [String: [UInt8]]
  /// The bytes when the bitmaps were clear; nil if there are none to look at.
  var bitmapsSince: [UInt8]?
  /// The raw data file holds what the disk holds, up to a crash.
  var checksRawData: Bool
  /// What is going on.
  var operation = "nothing"

  /// What a template's files have to hold.
  init(_ template: Template) {
    history = ByteHistory(template.bytes)
    sizes = [template.bytes.count]
    path = template.layers[0]
    chains = [template.layers]
    isUnsound = template.shape.isDamaged
    mayLeak = template.shape.mayLeak
    snapshots = template.snapshots
    bitmapsSince = template.shape.hasBitmaps ? template.bytes : nil
    checksRawData = template.shape.feature == .rawDataFile
  }

  /// The size that is certain.
  var certainSize: Int { sizes.min() ?? 0 }

  /// The chain as it was, while a job may change it.
  var oldChain: [String] { chains[0] }
}

/// What was found behind a crash.
struct Found: Sendable {
  var bytes: [UInt8]
  var chain: [String]
  var record: RecordExpectation?
  /// The raw data file has other bytes: of what was not flushed, one had the old and one the new.
  var rawDataDiffers: Bool
}

extension Expectation {
  /// What has to stay after a crash whose end is known.
  func after(_ found: Found) -> Expectation {
    var next = self
    next.history = ByteHistory(found.bytes)
    next.sizes = [found.bytes.count]
    // A job that has to go on leads to the new chain yet.
    let isOld = found.record != nil && found.chain == oldChain
    next.chains = isOld ? chains : [found.chain]
    next.record = found.record
    if found.rawDataDiffers { next.checksRawData = false }
    return next
  }
}
