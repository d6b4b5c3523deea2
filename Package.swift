// swift-tools-version: 6.2
import PackageDescription

// The layers of chainfs, bottom first. A module imports exactly what its line lists, and libraries.
// The same list makes the test targets; Tests/HouseRulesTests checks the import lines against it.

// mount-helpers/test turns warnings into errors; for a user a newer compiler's new warning is none.
let warnings: [SwiftSetting] =
  Context.environment["CHAINFS_WARNINGS"] == "errors" ? [.treatAllWarnings(as: .error)] : []

// Test targets leave strict memory safety off: `Span.bytes` itself counts as unsafe in Swift 6.3, so
// every expectation over a span would carry the word and say nothing.
let testSettings: [SwiftSetting] =
  [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    // A function that returns a span over memory its argument owns has to say so; Swift 6.3 has no
    // stable spelling for it. Used by HostSystem's span slices and BlockIO's AlignedBuffer alone.
    .enableExperimentalFeature("Lifetimes"),
  ] + warnings

// mount-helpers/fuzz builds with coverage that libFuzzer follows, in a build directory of its own,
// and there alone. The fuzzer is made of the sources of FuzzTests, with a main of libFuzzer's.
let isFuzzing = Context.environment["CHAINFS_FUZZ"] != nil
let coverage: [SwiftSetting] =
  isFuzzing ? [.unsafeFlags(["-sanitize=fuzzer", "-enable-testing"])] : []
let settings = [.strictMemorySafety()] + testSettings + coverage

let argumentParser = Target.Dependency.product(
  name: "ArgumentParser", package: "swift-argument-parser")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let eventLoops: [Target.Dependency] = [
  .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
]
let filePaths = Target.Dependency.product(name: "SystemPackage", package: "swift-system")

struct Layer {
  var name: String
  var imports: [Target.Dependency]
  var libraries: [Target.Dependency] = []
  var hasTests = true

  var target: Target {
    .target(name: name, dependencies: imports + libraries, swiftSettings: settings)
  }
  var testTarget: Target {
    // Tests see the modules below theirs as well: they build what they test from real parts.
    .testTarget(
      name: name + "Tests", dependencies: [.init(stringLiteral: name), "TestSupport"] + imports,
      swiftSettings: testSettings)
  }
}

let layers = [
  Layer(name: "HostSystem", imports: ["CHost"]),
  Layer(name: "Qcow2Format", imports: ["CZlib", "CZstd"]),
  Layer(name: "Encryption", imports: ["CCrypto", "HostSystem"]),
  Layer(name: "Fuse", imports: ["CFuse", "HostSystem"]),
  Layer(name: "BlockIO", imports: ["HostSystem"], libraries: [filePaths]),
  Layer(name: "ImageDriver", imports: ["Qcow2Format", "Encryption", "BlockIO", "HostSystem"]),
  Layer(
    name: "Chain", imports: ["ImageDriver", "Encryption", "BlockIO", "HostSystem"],
    libraries: [filePaths]),
  Layer(name: "Jobs", imports: ["Chain", "HostSystem"]),
  Layer(name: "Control", imports: ["Jobs", "Chain", "HostSystem"]),
  Layer(
    name: "Filesystem", imports: ["Control", "Chain", "Fuse", "HostSystem"],
    libraries: [logging], hasTests: false),
  Layer(name: "QMP", imports: ["Control", "HostSystem"], libraries: eventLoops),
]

// Tests of the whole: the program is built before them and run by them.
let suites = ["MountTests", "ConformanceTests", "HouseRulesTests"]

let systemTargets: [Target] = [
  .target(name: "CHost"),
  // No pkgConfig: what it says of the compiler's own directories would come before those of another fuse3.
  .systemLibrary(name: "CEdit", providers: [.apt(["libedit-dev"])]),
  .systemLibrary(name: "CFuse", pkgConfig: "fuse3", providers: [.apt(["libfuse3-dev"])]),
  .systemLibrary(name: "CCrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
  .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
  .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"])]),
]

let program: Target = .executableTarget(
  name: "chainfs",
  dependencies: [
    "QMP", "Filesystem", "Control", "Chain", "ImageDriver", "Encryption", "BlockIO", "Fuse",
    "HostSystem", "CHost", "CEdit", argumentParser, logging, filePaths,
  ],
  swiftSettings: settings)

let benchmark: Target = .executableTarget(
  name: "chainfs-bench", dependencies: ["HostSystem", argumentParser],
  swiftSettings: settings)

let testSupport: Target = .target(
  name: "TestSupport", dependencies: ["Chain", "BlockIO", "HostSystem"],
  path: "Tests/TestSupport")

// A program of the tests: it crashes simulated disks, see its main file.
let crashExplorer: Target = .executableTarget(
  name: "crash-explorer",
  dependencies: [
    "TestSupport", "Jobs", "Chain", "ImageDriver", "Encryption", "Qcow2Format", "BlockIO",
    "HostSystem", argumentParser,
  ],
  path: "Tests/CrashExplorer", swiftSettings: testSettings)

// A program that fails its own system calls: the functions of CFaults come before the C library's in
// whatever they are linked into, so no test target may depend on it. InjectionTests starts it.
let faultTargets: [Target] = [
  .target(name: "CFaults", path: "Tests/CFaults"),
  .testTarget(
    name: "InjectionTests", dependencies: ["TestSupport"], swiftSettings: testSettings),
  .executableTarget(
    name: "FaultDriver",
    dependencies: [
      "CFaults", "TestSupport", "HostSystem", "BlockIO", "Encryption", "ImageDriver", "Chain",
      "Jobs",
    ], path: "Tests/FaultDriver", swiftSettings: testSettings),
]

let suiteTargets: [Target] = suites.map { suite in
  .testTarget(
    name: suite, dependencies: ["chainfs", "Chain", "HostSystem", "TestSupport", argumentParser],
    swiftSettings: testSettings)
}

let fuzzImports: [Target.Dependency] = [
  "QMP", "Control", "Jobs", "Chain", "ImageDriver", "Encryption", "BlockIO", "Qcow2Format",
  "HostSystem", "TestSupport",
]

/// Hostile bytes for all parsers: replayed by the tests, made up by the fuzzer.
let fuzzing: Target =
  isFuzzing
  ? .executableTarget(
    name: "fuzz", dependencies: fuzzImports, path: "Tests/FuzzTests",
    exclude: ["Corpus", "FuzzTests.swift"], swiftSettings: testSettings,
    // Gold cannot read the debugging information of what it has to report on.
    linkerSettings: [.unsafeFlags(["-sanitize=fuzzer", "-use-ld=lld"])])
  : .testTarget(
    name: "FuzzTests", dependencies: fuzzImports, path: "Tests/FuzzTests",
    exclude: ["Corpus", "Fuzzer"], swiftSettings: testSettings)

let package = Package(
  name: "chainfs",
  products: [
    .executable(name: "chainfs", targets: ["chainfs"]),
    .executable(name: "chainfs-bench", targets: ["chainfs-bench"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
  ],
  targets: systemTargets + layers.map(\.target)
    + [program, benchmark, testSupport, crashExplorer]
    + faultTargets
    + layers.filter(\.hasTests).map(\.testTarget) + suiteTargets + [fuzzing],
  swiftLanguageModes: [.v6]
)
