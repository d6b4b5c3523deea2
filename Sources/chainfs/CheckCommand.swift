internal import ArgumentParser
internal import BlockIO
internal import Chain
internal import Control
internal import HostSystem
internal import ImageDriver

// The exit status tells scripts what was found, by qemu-img's numbers: 2 for corruption, 3 for leaks
// alone, 1 if the check could not be done.

struct Check: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract:
      "Compares an image's refcounts with its references; exit status 2 or 3 if they differ.")

  @OptionGroup var argument: ImageArgument
  @Flag(help: "Give leaked clusters back.")
  var repair = false

  func validate() throws {
    if argument.isRaw { throw ValidationError("a raw image has nothing to check") }
  }

  func run() throws {
    let path = argument.path
    let storage = try HostImageFiles().open(
      path, role: repair ? .active : .backing, isReadOnly: !repair, isLocked: true)
    defer { storage.close() }
    let report =
      repair
      ? try ImageCheck.repairLeaks(storage: storage) : try ImageCheck.run(storage: storage)
    Terminal.write(
      argument.json ? Self.json(of: report, path).line + "\n" : Self.text(of: report, path))
    if report.corruptions > 0 { throw ExitCode(2) }
    if report.checkErrors > 0 { throw ExitCode(1) }
    if report.leaks > 0 { throw ExitCode(3) }
  }

  private static func text(of report: CheckReport, _ path: String) -> String {
    var lines = report.findings.map { "\($0)" }
    let numbers = [
      (report.corruptions, "corruptions"), (report.leaks, "leaked clusters"),
      (report.leaksFixed, "leaked clusters given back"),
      (report.leaksBehindEnd, "leaked clusters behind the end of the file"),
      (report.checkErrors, "things that could not be checked"),
    ]
    lines += numbers.filter { $0.0 > 0 }.map { "\($0.0) \($0.1)" }
    if report.isClean { lines.append("\(path): no errors") }
    lines.append(
      "\(report.allocatedClusters) of \(report.totalClusters) clusters are allocated,"
        + " \(report.fragmentedClusters) fragmented, \(report.compressedClusters) compressed")
    return lines.joined(separator: "\n") + "\n"
  }

  /// The members that qemu-img prints, with its names; those that are zero are there too.
  private static func json(of report: CheckReport, _ path: String) -> JSONText {
    .object([
      .init("image-end-offset", .number(report.imageEndOffset.rawValue)),
      .init("total-clusters", .number(report.totalClusters)),
      .init("check-errors", .number(UInt64(report.checkErrors))),
      .init("corruptions", .number(UInt64(report.corruptions))),
      .init("leaks", .number(UInt64(report.leaks))),
      .init("leaks-fixed", .number(UInt64(report.leaksFixed))),
      .init("allocated-clusters", .number(report.allocatedClusters)),
      .init("fragmented-clusters", .number(report.fragmentedClusters)),
      .init("compressed-clusters", .number(report.compressedClusters)),
      .init("filename", .string(path)), .init("format", .string("qcow2")),
      .init("findings", .array(report.findings.map { .string("\($0)") })),
    ])
  }
}
