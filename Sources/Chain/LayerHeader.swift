/// What the header of a layer says, beyond what every image has.
package struct LayerHeader: Sendable, Equatable {
  /// Something that only one format has to say.
  package indirect enum Value: Sendable, Equatable {
    case text(String)
    case list([Value])
    case fields([Field])
  }

  /// A name, as QEMU writes it for people, with its value.
  package struct Field: Sendable, Equatable {
    /// The name.
    package var name: String
    /// What it names.
    package var value: Value

    init(_ name: String, _ value: Value) {
      self.name = name
      self.value = value
    }

    init(_ name: String, _ text: some CustomStringConvertible) {
      self.init(name, .text(String(describing: text)))
    }
  }

  /// An internal snapshot.
  package struct Snapshot: Sendable, Equatable {
    /// The unique id, a decimal number as text.
    package var id: String
    /// The name that somebody gave it.
    package var name: String
    /// The bytes of VM state that were saved with it.
    package var vmStateSize: UInt64
    /// When it was made, in seconds since 1970.
    package var dateSeconds: UInt32
    /// How long the guest had been running, in nanoseconds.
    package var guestClockNanoseconds: UInt64
    /// The instructions that the guest had executed; nil if they were not counted.
    package var instructionCount: UInt64?
  }

  /// The size of the disk that the image shows.
  package var virtualSize: UInt64
  /// The unit of allocation, nil for a raw image.
  package var clusterSize: Int?
  /// The bytes of the disk are encrypted.
  package var isEncrypted: Bool
  /// Marked as not closed.
  package var isDirty = false
  /// The image below as the header names it.
  package var backingName: String?
  /// The format of the image below as the header names it.
  package var backingFormat: String?
  /// The internal snapshots, in the order of the directory.
  package var snapshots: [Snapshot] = []
  /// What only the format has to say, in QEMU's order.
  package var specific: [Field] = []
}
