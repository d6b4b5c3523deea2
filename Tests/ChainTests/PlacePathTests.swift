import Testing

@testable import Chain

@Suite("Paths as text")
struct PlacePathTests {
  @Test(
    "a backing name is resolved from the overlay's directory",
    arguments: [
      ("base", "/images", "/images/base"), ("../base", "/images/sn", "/images/sn/../base"),
      ("/base", "/images", "/base"), ("base", ".", "./base"), ("sub/base", "t2", "t2/sub/base"),
    ])
  func resolves(path: String, directory: String, result: String) {
    #expect(PlacePath.resolve(path, from: directory) == result)
  }

  @Test(
    "a file is named from a directory",
    arguments: [
      ("/images/base", "/images", "base"), ("/images/base", "/images/sn", "../base"),
      ("/images/sn/../base", "/images", "base"), ("/base", "/images/sn", "../../base"),
      ("/a/b/c", "/a/x/y", "../../b/c"), ("/images", "/images", "../images"),
      ("/images/a:b", "/images", "./a:b"),
    ])
  func relative(path: String, directory: String, result: String) {
    #expect(PlacePath.relative(path, to: directory) == result)
  }

  @Test(
    "a file lies in a directory by whole components",
    arguments: [
      ("/images/base", "/images", true), ("/images/sn/base", "/images", true),
      ("/images2/base", "/images", false), ("/base", "/images", false), ("/base", "/", true),
    ])
  func lies(path: String, directory: String, result: Bool) {
    #expect(PlacePath.lies(path, in: directory) == result)
  }

  @Test(
    "directory and file name are told apart",
    arguments: [("/a/b", "/a", "b"), ("b", ".", "b"), ("a/b", "a", "b"), ("/b", "/", "b")])
  func parts(path: String, directory: String, fileName: String) {
    #expect(PlacePath.directory(of: path) == directory)
    #expect(PlacePath.fileName(of: path) == fileName)
  }
}
