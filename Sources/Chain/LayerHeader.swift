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
  /// What only the format has to say, in QEMU's order.
  package var specific: [Field] = []
}
