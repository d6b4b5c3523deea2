internal import Chain
package import HostSystem
internal import Jobs

/// Why a control write, or the reading of a control file, was refused.
package struct ControlError: Error, Sendable, Equatable, CustomStringConvertible {
  /// What becomes the errno of write(2).
  package var kind: FailureKind
  /// What stands in the `error` file: lower case, names the thing and the fix, no newline.
  package var sentence: String
  /// The rule that refused it, where another face has words of its own for that.
  package var rule: ControlRule?

  /// A refusal with its parts.
  package init(kind: FailureKind, sentence: String, rule: ControlRule? = nil) {
    self.kind = kind
    self.sentence = sentence
    self.rule = rule
  }

  init(_ error: JobError) {
    self.init(kind: error.kind, sentence: error.description, rule: ControlRule(error))
  }

  init(_ error: ChainError) {
    self.init(kind: error.kind, sentence: error.description)
  }

  static func invalid(_ sentence: String) -> ControlError {
    ControlError(kind: .invalid, sentence: sentence)
  }

  /// The sentence.
  package var description: String { sentence }
}
