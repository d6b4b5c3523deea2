/// What HMP's `info block` is asked.
package struct BlockQuestion: Sendable, Equatable {
  /// The device, or the node; nil for all.
  package var name: String?
  /// Only nodes are meant.
  package var ofNodes: Bool
  /// What the headers of the layers say is told too.
  package var isVerbose: Bool

  /// A question with all its parts.
  package init(name: String?, ofNodes: Bool = false, isVerbose: Bool = false) {
    self.name = name
    self.ofNodes = ofNodes
    self.isVerbose = isVerbose
  }
}
