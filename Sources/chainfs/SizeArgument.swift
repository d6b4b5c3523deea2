internal import ArgumentParser
internal import Control

/// A size on the command line, by the rule of the control files.
struct SizeArgument: ExpressibleByArgument {
  let bytes: UInt64

  init?(argument: String) {
    guard let bytes = SizeText.bytes(argument) else { return nil }
    self.bytes = bytes
  }
}
