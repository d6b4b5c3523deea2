import Testing

@testable import Jobs

@Suite("JobIDs")
struct JobIDsTests {
  @Test(
    "an id that a user gives begins with a letter",
    arguments: [
      ("a", true), ("Z", true), ("job-0.x_Y9", true), ("j1", true), ("", false), ("1bad", false),
      ("-a", false), ("_a", false), (".a", false), ("a b", false), ("a/b", false), ("a\n", false),
      ("\u{e4}", false), ("a\u{e4}", false), ("a\0", false),
    ])
  func form(id: String, isWellFormed: Bool) {
    #expect(JobIDs.isWellFormed(id) == isWellFormed)
  }

  @Test("an id is taken until it is given back")
  func claims() {
    let ids = JobIDs()
    #expect(ids.claim("a"))
    #expect(!ids.claim("a"))
    #expect(ids.claim("b"))
    ids.release("a")
    #expect(ids.claim("a"))
  }
}
