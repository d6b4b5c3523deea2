internal import ArgumentParser
internal import BlockIO
internal import Chain
internal import Control
internal import HostSystem
internal import ImageDriver

extension RepairExtent: ExpressibleByArgument {
  public init?(argument: String) {
    switch argument {
    case "leaks": self = .leaks
    case "all": self = .all
    default: return nil
    }
  }

  public static var allValueStrings: [String] { ["leaks", "all"] }
}

struct Check: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Compares an image's refcounts with its references, and mends what differs.",
    discussion: """
      What is found is counted as qemu-img check counts it: corruptions, leaks (space that is lost, and \
      nothing else), and things that could not be checked. --repair leaks lowers refcounts in an image \
      that has no other fault; --repair all mends everything that can be mended without a change of what \
      the guest reads, and clears the dirty and the corrupt bit when nothing is left. What cannot be \
      mended is said, and stays.

      Exit status: 0 if the image is sound (now), 1 if something is wrong with it or the check failed, 64 \
      on wrong usage. --json tells which.
      """)

  @OptionGroup var argument: ImageArgument
  @Option(help: "Mend the image: leaks, or all that can be mended.")
  var repair: RepairExtent?

  func validate() throws {
    if argument.isRaw { throw ValidationError("a raw image has nothing to check") }
  }

  func run() throws {
    let path = argument.path
    let isReadOnly = repair == nil
    let storage = try HostImageFiles().open(
      path, role: isReadOnly ? .backing : .active, isReadOnly: isReadOnly, isLocked: true)
    defer { storage.close() }
    let view = PercentView(verb: isReadOnly ? "checking" : "repairing")
    let report: CheckReport
    do {
      report =
        if let repair {
          try ImageCheck.repair(storage: storage, repair, progress: view.show)
        } else {
          try ImageCheck.run(storage: storage, progress: view.show)
        }
    } catch {
      view.finish()
      throw error
    }
    view.finish()
    Terminal.write(
      argument.json
        ? Self.json(of: report, path).line + "\n" : Self.text(of: report, path, repair))
    let isSound = report.corruptions == 0 && report.leaks == 0 && report.checkErrors == 0
    if !isSound { throw ExitCode(1) }
  }

  private static func text(
    of report: CheckReport, _ path: String, _ repair: RepairExtent?
  ) -> String {
    var lines = report.findings.map { "\($0)" }
    let stays = repair == .all ? " that cannot be mended" : ""
    let numbers = [
      (report.corruptionsFixed, "corruptions mended"),
      (report.leaksFixed, "leaked clusters given back"),
      (report.corruptions, "corruptions" + stays), (report.leaks, "leaked clusters"),
      (report.leaksBehindEnd, "leaked clusters behind the end of the file"),
      (report.checkErrors, "things that could not be checked"),
    ]
    lines += numbers.filter { $0.0 > 0 }.map { "\($0.0) \($0.1)" }
    if report.isClean { lines.append("\(path): no errors") }
    if repair == nil, !report.isClean {
      let extent = report.corruptions > 0 ? "all" : "leaks"
      lines.append("chainfs check --repair \(extent) \(path) mends what can be mended")
    }
    if repair == .all, report.corruptions > 0, report.leaks > 0 {
      lines.append("leaked clusters stay: they may hold what a broken entry should name")
    }
    lines.append(
      "\(report.allocatedClusters) of \(report.totalClusters) clusters are allocated,"
        + " \(report.fragmentedClusters) fragmented, \(report.compressedClusters) compressed")
    return lines.joined(separator: "\n") + "\n"
  }

  /// The members that qemu-img prints, with its names, and as it does only those that are not zero;
  /// the findings are ours.
  private static func json(of report: CheckReport, _ path: String) -> JSONText {
    let numbers: [(String, UInt64)] = [
      ("image-end-offset", report.imageEndOffset.rawValue),
      ("total-clusters", report.totalClusters), ("corruptions", UInt64(report.corruptions)),
      ("corruptions-fixed", UInt64(report.corruptionsFixed)),
      ("leaks", UInt64(report.leaks)), ("leaks-fixed", UInt64(report.leaksFixed)),
      ("allocated-clusters", report.allocatedClusters),
      ("fragmented-clusters", report.fragmentedClusters),
      ("compressed-clusters", report.compressedClusters),
    ]
    var members = numbers.filter { $0.1 > 0 }.map { JSONText.Member($0.0, .number($0.1)) }
    members += [
      .init("check-errors", .number(UInt64(report.checkErrors))),
      .init("filename", .string(path)), .init("format", .string("qcow2")),
      .init("findings", .array(report.findings.map { .string("\($0)") })),
    ]
    return .object(members)
  }
}
