import Control
import Testing

@testable import QMP

@Suite struct ArgumentsTests {
  private enum Fruit: String {
    case apple, pear
  }

  private static let members: [JSONText.Member] = [
    .init("s", .string("x")), .init("b", .bool(true)), .init("i", .numeral("-5")),
    .init("f", .numeral("5.0")), .init("big", .numeral("9223372036854775808")),
    .init("null", .null), .init("pear", .string("pear")), .init("list", .array([.string("a")])),
  ]

  private func refusal<Value>(
    _ body: (inout Arguments) throws(QMPError) -> Value
  ) -> String? {
    var arguments = Arguments(Self.members)
    do {
      _ = try body(&arguments)
      return nil
    } catch { return error.text }
  }

  @Test("arguments are taken by name and type, and what is left is refused")
  func taking() throws {
    var arguments = Arguments(Array(Self.members.prefix(3)))
    #expect(try arguments.string("s") == "x")
    #expect(try arguments.bool("b", otherwise: false))
    #expect(throws: QMPError("Parameter 'i' is unexpected")) { try arguments.finish() }
    #expect(try arguments.integer("i") == -5)
    try arguments.finish()
    #expect(try arguments.optionalString("s") == nil)
    #expect(try arguments.bool("b", otherwise: true))
    #expect(try arguments.optionalInteger("i") == nil)
    #expect(try arguments.choice("fruit", otherwise: Fruit.apple) == .apple)
  }

  @Test("a wrong type is refused in QEMU's words")
  func types() {
    let wrong = "Invalid parameter type for "
    #expect(refusal { a throws(QMPError) in try a.string("i") } == wrong + "'i', expected: string")
    #expect(
      refusal { a throws(QMPError) in try a.optionalString("null") }
        == wrong + "'null', expected: string")
    #expect(
      refusal { a throws(QMPError) in try a.bool("s", otherwise: true) }
        == wrong + "'s', expected: boolean")
    for name in ["f", "big", "s"] {
      #expect(
        refusal { a throws(QMPError) in try a.integer(name) }
          == wrong + "'\(name)', expected: integer")
    }
    #expect(
      refusal { a throws(QMPError) in try a.choice("s", otherwise: Fruit.apple) }
        == "Parameter 's' does not accept value 'x'")
    #expect(
      refusal { a throws(QMPError) in try a.choice("pear", otherwise: Fruit.apple) } == nil)
    #expect(
      refusal { a throws(QMPError) in try a.string("none") } == "Parameter 'none' is missing")
    #expect(
      refusal { a throws(QMPError) in try a.integer("none") } == "Parameter 'none' is missing")
    #expect(
      refusal { a throws(QMPError) in try a.optionalStrings("s") }
        == wrong + "'s', expected: array")
    #expect(refusal { a throws(QMPError) in try a.optionalStrings("list") } == nil)
  }
}
