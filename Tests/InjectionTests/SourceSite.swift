import Foundation
import TestSupport

/// A place in the sources where the block leg asks for a system call.
struct SourceSite: Hashable, Comparable, CustomStringConvertible {
  var module: String
  var function: String
  /// The function of `SystemCall`.
  var call: String

  var description: String { "\(module) \(function): SystemCall.\(call)" }

  static func < (one: SourceSite, other: SourceSite) -> Bool {
    one.description < other.description
  }

  /// The modules between the guest's request and the host's files; HostSystem holds the calls
  /// themselves, and small files that are replaced as a whole.
  static let places = ["HostSystem/NamedFiles.swift", "BlockIO", "ImageDriver", "Chain", "Jobs"]

  /// All that the sources have.
  static func all() throws -> Set<SourceSite> {
    var sites: Set<SourceSite> = []
    for place in places {
      let root = "\(Program.project)/Sources/\(place)"
      let names = FileManager.default.enumerator(atPath: root)?.compactMap { $0 as? String } ?? []
      let files = place.hasSuffix(".swift") ? [root] : names.map { "\(root)/\($0)" }
      let module = String(place.prefix { $0 != "/" })
      for file in files where file.hasSuffix(".swift") {
        sites.formUnion(Self.sites(in: try String(contentsOfFile: file, encoding: .utf8), module))
      }
    }
    return sites
  }

  private static func sites(in text: String, _ module: String) -> [SourceSite] {
    var function = "?"
    var sites: [SourceSite] = []
    for line in text.split(separator: "\n") {
      let code = line.range(of: "//").map { line[..<$0.lowerBound] } ?? line
      if let name = code.firstMatch(of: #/\bfunc (\w+)/#) {
        function = String(name.1)
      } else if code.contains(#/\binit[?]?\(/#), !code.contains("self.init("),
        !code.contains(".init(")
      {
        function = "init"
      }
      for call in code.matches(of: #/\bSystemCall\.([a-z]\w*)\(/#) {
        sites.append(SourceSite(module: module, function: function, call: String(call.1)))
      }
    }
    return sites
  }
}
