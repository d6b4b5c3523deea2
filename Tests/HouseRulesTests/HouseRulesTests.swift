import ArgumentParser
import Foundation
import TestSupport
import Testing

@testable import chainfs

/// The rules of the house that a program can check.
@Suite struct HouseRulesTests {
  /// What a module may import of ours, as the layers of Package.swift have it.
  static let layers: [String: Set<String>] = [
    "HostSystem": ["CHost"],
    "Qcow2Format": ["CZlib", "CZstd"],
    "Encryption": ["CCrypto", "HostSystem"],
    "Fuse": ["CFuse", "HostSystem"],
    "BlockIO": ["HostSystem", "CHost"],
    "ImageDriver": ["Qcow2Format", "Encryption", "BlockIO", "HostSystem"],
    "Chain": ["ImageDriver", "Encryption", "BlockIO", "HostSystem"],
    "Jobs": ["Chain", "HostSystem"],
    "Control": ["Jobs", "Chain", "HostSystem"],
    "Filesystem": ["Control", "Chain", "Fuse", "HostSystem"],
    "QMP": ["Control", "HostSystem"],
    "chainfs": [
      "QMP", "Filesystem", "Control", "Chain", "ImageDriver", "Encryption", "BlockIO", "Fuse",
      "HostSystem", "CHost", "CEdit",
    ],
    "chainfs-bench": ["HostSystem"],
  ]

  /// Files that may hold pointers. Besides them, `unsafe` stands where a span gives its bytes, which
  /// Swift 6.3 counts as unsafe, and before C calls that are lent a string.
  static let pointerFiles: Set<String> = [
    "HostSystem/SystemCall.swift", "HostSystem/SystemCall+Files.swift",
    "HostSystem/SystemCall+Sockets.swift", "HostSystem/Monitor.swift",
    "HostSystem/RawSpan+Bytes.swift", "HostSystem/SharedGate.swift", "HostSystem/ThreadSlot.swift",
    "HostSystem/Worker.swift", "HostSystem/AtomicBits.swift", "HostSystem/ShardedCounters.swift",
    "Fuse/OperationTable.swift", "Fuse/Session.swift", "Fuse/Reply.swift",
    "Fuse/RequestMemory.swift",
    "Fuse/DirectoryListing.swift", "Fuse/MountTable.swift", "Fuse/RequestDevice.swift",
    "Fuse/RequestLoop.swift",
    "BlockIO/AlignedBuffer.swift", "BlockIO/ImageLock.swift",
    "Qcow2Format/BigEndian.swift", "Qcow2Format/CompressedCluster.swift",
    "Encryption/Crypto.swift", "chainfs/LineEditor.swift",
  ]

  struct Source {
    var name: String
    var text: String
    /// The text without its comments and string literals' contents, line by line.
    var code: [Substring] {
      text.split(separator: "\n", omittingEmptySubsequences: false).map { line in
        guard let comment = line.range(of: "//") else { return line }
        return line[..<comment.lowerBound]
      }
    }
  }

  static func sources(below top: String) throws -> [Source] {
    let root = "\(Program.project)/\(top)"
    let names = FileManager.default.enumerator(atPath: root)?.compactMap { $0 as? String } ?? []
    return try names.filter { $0.hasSuffix(".swift") }.sorted().map {
      Source(name: $0, text: try String(contentsOfFile: "\(root)/\($0)", encoding: .utf8))
    }
  }

  @Test("modules import only what their layer lists")
  func imports() throws {
    let ours = Set(Self.layers.keys).union(["CHost", "CEdit", "CFuse", "CZlib", "CZstd", "CCrypto"])
    for source in try Self.sources(below: "Sources") {
      let module = String(source.name.prefix { $0 != "/" })
      let allowed = try #require(Self.layers[module], "\(module) has no layer")
      for line in source.code {
        let words = line.split(separator: " ")
        guard let index = words.firstIndex(of: "import"), index <= 2, words.count > index + 1,
          ours.contains(String(words[index + 1]))
        else { continue }
        #expect(allowed.contains(String(words[index + 1])), "\(source.name): \(line)")
      }
    }
  }

  @Test(
    "banned words stay out of the sources", arguments: ["try?", "try!", "as!", "TODO", "FIXME"])
  func banned(word: String) throws {
    for source in try Self.sources(below: "Sources") {
      for (index, line) in source.code.enumerated() {
        let found = (" " + line).ranges(of: word).contains { range in
          // Not the end of a longer word, as in `Entry?`.
          (" " + line)[..<range.lowerBound].last?.isLetter == false
        }
        #expect(!found, "\(source.name):\(index + 1)")
      }
    }
  }

  @Test("pointers appear only in the files that are listed for them")
  func pointers() throws {
    for source in try Self.sources(below: "Sources") where !isListed(source.name) {
      for (index, line) in source.code.enumerated() {
        let words = line.split { !$0.isLetter && $0 != "_" }
        let pointer = words.first {
          $0.hasPrefix("Unsafe") || $0.hasPrefix("withUnsafe") || $0 == "OpaquePointer"
        }
        #expect(pointer == nil, "\(source.name):\(index + 1)")
      }
    }
  }

  private func isListed(_ name: String) -> Bool {
    Self.pointerFiles.contains(name) || name.hasPrefix("BlockIO/HostFile")
  }

  @Test("sources are ASCII")
  func ascii() throws {
    for source in try Self.sources(below: "Sources") + Self.sources(below: "Tests") {
      #expect(source.text.utf8.allSatisfy { $0 < 128 }, "\(source.name)")
    }
  }

  @Test("the top of the project holds what it should")
  func topLevel() throws {
    let allowed: Set = ["Package.swift", "README.md", "Sources", "Tests", "mount-helpers"]
    for name in try FileManager.default.contentsOfDirectory(atPath: Program.project)
    where !name.hasPrefix(".") && name != "Package.resolved" {
      #expect(allowed.contains(name), "\(name)")
    }
  }

  @Test("scripts have their run bit and a shell reads them")
  func scripts() throws {
    let files = try Shell.run(
      """
      for file in .ci/run mount-helpers/*; do
        case $file in *.8) continue ;; esac
        [ -x $file ] || echo "$file is not executable"
        sh -n $file || echo "$file does not parse"
      done
      """, in: Program.project)
    #expect(files.output == "")
  }

  @Test("a program that a test starts hears of every signal")
  func signals() throws {
    let lines = try runSuccessfully("grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status")
      .split(separator: "\n")
    #expect(lines.count == 2)
    // Two of the signals are the C library's own, and it lets nobody set them.
    let itsOwn: UInt64 = 1 << 31 | 1 << 32
    for line in lines {
      let signals = try #require(UInt64(line.suffix(16), radix: 16))
      #expect(signals & ~itsOwn == 0, "\(line)")
    }
  }

  @Test("the man page has every option, verb and command")
  func manPage() throws {
    let page = try String(
      contentsOfFile: "\(Program.project)/mount-helpers/mount.chainfs.8", encoding: .utf8
    ).replacing("\\-", with: "-")
    let verbs = [
      "stream", "cancel", "speed", "pause", "resume", "snapshot", "stop", "cont", "plan", "status",
      "status.json", "wait", "chain", "info", "error", "block", "events", "finalize", "dismiss",
      "monitor", "metrics",
    ]
    let commands = Chainfs.configuration.subcommands.compactMap { $0._commandName }
    #expect(commands.count > 10)
    for word in MountOptions.names + verbs + commands {
      #expect(page.contains(word), "\(word)")
    }
  }
}
