import Testing

@testable import Chain

@Suite("Names of views")
struct ViewNameTests {
  @Test(
    "a snapshot's name is made one that a file can have",
    arguments: [
      ("plain", "plain"), ("a/b", "a%2Fb"), ("50%", "50%25"), ("new\nline\0", "new%0Aline%00"),
      ("\u{7f}", "%7F"), ("..", ".."), ("sp ace", "sp ace"), ("\u{e9}", "\u{e9}"),
      (String(repeating: "x", count: 120), String(repeating: "x", count: 120)),
      (String(repeating: "x", count: 121), String(repeating: "x", count: 120)),
      // Two bytes each, and the one that does not fit is left out as a whole.
      ("y" + String(repeating: "\u{e9}", count: 60), "y" + String(repeating: "\u{e9}", count: 59)),
    ])
  func safe(_ name: String, _ expected: String) {
    #expect(ViewName.made(safe: name) == expected)
  }

  @Test(
    "a name tells its place and its snapshot",
    arguments: [
      ("0-a", 0), ("12-a", 12), ("-a", nil), ("a", nil), ("", nil), ("-1-a", nil),
      ("99999999999999999999-a", nil),
    ] as [(String, Int?)])
  func index(_ name: String, _ expected: Int?) {
    #expect(ViewName.index(in: name) == expected)
  }

  @Test("no name is longer than a file's may be, and each is found again")
  func length() {
    for fileName in ["a", "a@b", String(repeating: "f", count: 255)] {
      #expect(ViewName.layer(index: 999, fileName: fileName).utf8.count <= 255)
      for snapshot in ["s", "s@t", String(repeating: "s", count: 120) + "~65536"] {
        let name = ViewName.snapshot(snapshot, index: 999, fileName: fileName)
        #expect(name.utf8.count <= 255)
        #expect(ViewName.snapshot(in: name, index: 999, fileName: fileName) == snapshot)
        #expect(ViewName.snapshot(in: name, index: 998, fileName: fileName) == nil)
      }
    }
  }

  @Test("equal names are told apart, whatever else is called like that")
  func duplicates() {
    let layer = LayerID(rawValue: 7)
    let names = SnapshotNames(
      ["a", "a~2", "a", "a", "", "%2F", "/"].enumerated().map { ("\($0 + 1)", $1) }, of: layer)
    #expect(names.names == ["a", "a~2", "a~3", "a~4", "5", "%252F", "%2F"])
    #expect(names.places.count == 7)
    for (place, name) in names.names.enumerated() { #expect(names.places[name] == place) }
  }
}
