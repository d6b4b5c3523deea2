import CFaults
import Foundation
import HostSystem

/// Where a system call is made: the call, the function that makes it, and who called that one.
struct Site: Hashable, Comparable, Sendable {
  /// The system call itself.
  var call: String
  /// The function of `SystemCall` that is asked for it, or the call if there is none.
  var wrapper: String
  /// The function that asks, as `Module.Type.function`.
  var function: String
  /// The nearest function above the storage that it is asked for.
  var caller: String

  static func < (one: Site, other: Site) -> Bool {
    one.words.lexicographicallyPrecedes(other.words)
  }

  var words: [String] { [call, wrapper, function, caller] }

  /// Reads a site from the names of the functions that led to a call, innermost first.
  init(call: String, frames: [String]) {
    let functions = frames.map(Self.shortened)
    self.call = call
    // A closure of a wrapper may have the standard library's functions around it.
    let last = functions.prefix(20).lastIndex { $0.hasPrefix("HostSystem.SystemCall.") }
    wrapper = last.map { String(functions[$0].dropFirst("HostSystem.SystemCall.".count)) } ?? call
    let rest = functions[(last.map { $0 + 1 } ?? 0)...].filter(Self.tellsSomething)
    function = rest.first ?? "?"
    let above = rest.first { name in
      !["BlockIO.", "HostSystem.", "Chain.HostImageFiles."].contains { name.hasPrefix($0) }
        && !Self.plumbing.contains { name.hasSuffix($0) }
    }
    // What the map of the layers asks for is asked again if it fails, whoever of the layers was asked.
    caller = functions.contains(Self.merge) ? Self.merge : above ?? "?"
  }

  static let merge = "Chain.MergedMap.merge"

  /// Functions that only pass on what others want.
  private static let plumbing: Set<String> = [
    ".onStorage", ".onImage", ".readTable", ".writeTable", ".readEntries", ".writeEntries",
    ".replaceTable", ".replaceEntries", ".call", ".calling", ".withBytes", ".withMutableBytes",
    ".run", ".withLock", ".sync",
  ]

  private static func tellsSomething(_ name: String) -> Bool {
    let modules = [
      "HostSystem.", "BlockIO.", "ImageDriver.", "Chain.", "Jobs.", "Encryption.", "FaultDriver.",
    ]
    guard modules.contains(where: { name.hasPrefix($0) }) else { return false }
    let passing = [
      "BlockIO.calling", "HostImageFiles.call", "SharedFlush.run", "ThreadScratch.withBuffer",
      "HostSystem.Monitor.", "HostSystem.SharedGate.",
    ]
    return !passing.contains { name.contains($0) }
  }

  /// `closure #1 () -> () in static Module.(Type in _0AF).function(label:) throws -> Result` without
  /// all that is not a name.
  private static func shortened(_ mangled: String) -> String {
    guard let pointer = faults_demangled(mangled) else { return mangled }
    defer { free(pointer) }
    var name = String(cString: pointer)
    // Of nested functions the outermost counts.
    if let inside = name.range(of: " in (?!_[0-9A-F]+\\))", options: .regularExpression) {
      var last = inside
      while let next = name.range(
        of: " in (?!_[0-9A-F]+\\))", options: .regularExpression,
        range: last.upperBound..<name.endIndex)
      { last = next }
      name = String(name[last.upperBound...])
    }
    for prefix in ["static ", "generic specialization ", "merged ", "protocol witness for "]
    where name.hasPrefix(prefix) {
      name.removeFirst(prefix.count)
    }
    name = name.replacingOccurrences(
      of: "\\(in _[0-9A-F]+\\)\\.?", with: "", options: .regularExpression)
    name = name.replacingOccurrences(
      of: "\\(([^() ]+) in _[0-9A-F]+\\)", with: "$1", options: .regularExpression)
    name = name.replacingOccurrences(
      of: "\\(extension in [A-Za-z0-9]+\\):", with: "", options: .regularExpression)
    if let end = name.firstIndex(where: { $0 == "(" || $0 == "<" || $0 == " " }) {
      name = String(name[..<end])
    }
    return name.replacingOccurrences(of: ".__allocating_init", with: ".init")
  }

  private static let cache = Monitor<[String: Site]>([:])

  private static func site(_ call: String, _ frame: (Int32) -> UnsafePointer<CChar>?) -> Site {
    var frames: [String] = []
    var index: Int32 = 0
    while let name = frame(index) {
      frames.append(String(cString: name))
      index += 1
    }
    let key = call + " " + frames.joined(separator: " ")
    return cache.withLock { cache in
      if let known = cache[key] { return known }
      let site = Site(call: call, frames: frames)
      cache[key] = site
      return site
    }
  }

  /// The site of the call that was failed.
  static var hit: Site {
    site(String(cString: faults_hit_call())) { faults_hit_frame($0) }
  }

  /// The site of a call of the trial run.
  static func traced(_ position: Int) -> Site {
    site(String(cString: faults_traced_call(position))) { faults_traced_frame(position, $0) }
  }
}
