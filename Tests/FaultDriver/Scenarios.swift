import BlockIO
import CFaults
import Chain
import Encryption
import Foundation
import HostSystem
import ImageDriver
import Jobs
import TestSupport

extension Scenario {
  static let all =
    [
      chain, relative, raw, dataFile, rawDataFile, snapshots, subclusters, refcounts, encrypted,
      recovery, version2, withoutHoles, files, conflict, leftJob, pastPageCache, inner,
    ] + ErrorPolicy.allCases.map(job) + [snapshotJob]

  /// base.raw (short) <- mid (compressed, zero) <- top (bitmap); 256 KiB.
  private static let chainScript = """
    qemu-img create -q -f raw base.raw 200k
    qemu-io -f raw -c 'write -q -P 1 0 150k' base.raw
    qemu-img create -q -f qcow2 -o cluster_size=4k -b base.raw -F raw mid.qcow2 256k
    qemu-io -f qcow2 -c 'write -q -P 2 64k 32k' -c 'write -q -c -P 3 128k 4k' \
      -c 'write -q -c -P 4 132k 4k' -c 'write -q -z 160k 16k' mid.qcow2
    qemu-img create -q -f qcow2 -o cluster_size=4k -b mid.qcow2 -F qcow2 top.qcow2
    qemu-img bitmap --add -g 4k top.qcow2 dirty
    qemu-io -f qcow2 -c 'write -q -P 5 32k 20k' -c 'write -q -c -P 6 200k 4k' top.qcow2
    """

  static let chain = Scenario(
    name: "chain", script: chainScript,
    steps: [
      .open("top.qcow2"), .read(0, 256 << 10), .write(10_001, 5000), .write(40_000, 300),
      .write(64 << 10, 8192), .zero(80_000, 20_000), .discard(128 << 10, 12_288), .flush,
      .write(200 << 10, 512), .look, .preallocate(150_000, 20_000), .discard(33 << 10, 9000),
      .snapshot("sn1.qcow2"), .write(1000, 3000), .write(70_000, 6000),
      .populate(base: "mid.qcow2"), .rebase(base: "mid.qcow2"), .write(33_000, 9000),
      .grow(320 << 10), .write(300 << 10, 7000), .flush, .populate(base: nil),
      .rebase(base: nil), .write(100_000, 10_000), .close, .reopen,
      .read(0, 256 << 10), .write(5, 5), .close,
    ], untouched: ["base.raw", "mid.qcow2"])

  /// Odd bytes are written by whole sectors, tables too.
  static let pastPageCache = Scenario(
    name: "past page cache", script: chainScript, isPastPageCache: true,
    steps: [
      .open("top.qcow2"), .read(0, 256 << 10), .write(10_001, 5000), .write(40_000, 300),
      .zero(80_000, 20_000), .discard(128 << 10, 12_288), .flush, .snapshot("sn1.qcow2"),
      .write(1000, 3000), .populate(base: nil), .rebase(base: nil), .write(5, 5), .close,
    ], untouched: ["base.raw", "mid.qcow2"])

  /// A stream into a layer below the active image, which somebody else has at first.
  static let inner = Scenario(
    name: "inner", script: chainScript,
    steps: [
      .open("top.qcow2"), .read(0, 256 << 10), .innerInUse("mid.qcow2"), .write(10_001, 5000),
      .inner("mid.qcow2"), .read(0, 256 << 10), .write(64 << 10, 8192), .flush, .close, .reopen,
      .read(0, 256 << 10), .close,
    ], untouched: ["base.raw"])

  static let relative = Scenario(
    name: "relative", script: chainScript, isRelative: true,
    steps: [
      .open("top.qcow2"), .write(10_001, 5000), .populate(base: "base.raw"),
      .rebase(base: "base.raw"), .close,
    ], untouched: ["base.raw", "mid.qcow2"])

  static let raw = Scenario(
    name: "raw",
    script: """
      qemu-img create -q -f raw top.raw 256k
      qemu-io -f raw -c 'write -q -P 1 20k 100k' top.raw
      """, isRaw: true,
    steps: [
      .open("top.raw"), .read(0, 256 << 10), .write(10_001, 5000), .write(64 << 10, 8192),
      .zero(30_000, 30_000), .zero(64 << 10, 4096), .discard(100_000, 20_000), .flush, .look,
      .preallocate(200_000, 20_000), .grow(300 << 10), .write(290 << 10, 5000), .flush, .close,
    ])

  private static func dataFileSteps(_ name: String) -> [Step] {
    [
      .open(name), .write(10_001, 5000), .write(64 << 10, 8192), .zero(80_000, 120_000),
      .discard(0, 65_536), .flush, .preallocate(200_000, 40_000), .discard(128 << 10, 65_536),
      .grow(600 << 10), .write(580 << 10, 5000), .flush, .close,
    ]
  }

  static let dataFile = Scenario(
    name: "data-file",
    script: """
      qemu-img create -q -f qcow2 -o cluster_size=16k,data_file=top.data top.qcow2 512k
      qemu-io -f qcow2 -c 'write -q -P 1 20k 200k' top.qcow2
      """, steps: dataFileSteps("top.qcow2"))

  static let rawDataFile = Scenario(
    name: "raw-data-file",
    script: """
      qemu-img create -q -f qcow2 -o cluster_size=16k,data_file=top.data,data_file_raw=on \
        top.qcow2 512k
      qemu-io -f qcow2 -c 'write -q -P 1 20k 200k' top.qcow2
      """, steps: dataFileSteps("top.qcow2"))

  private static func snapshotScript(_ options: String) -> String {
    """
    qemu-img create -q -f qcow2 -o cluster_size=4k base.qcow2 256k
    qemu-io -f qcow2 -c 'write -q -P 1 0 150k' -c 'write -q -z 150k 6k' base.qcow2
    qemu-img create -q -f qcow2 -o \(options) -b base.qcow2 -F qcow2 top.qcow2
    qemu-io -f qcow2 -c 'write -q -P 2 30k 20k' top.qcow2
    qemu-img snapshot -c first top.qcow2
    qemu-io -f qcow2 -c 'write -q -P 3 40k 40k' -c 'discard -q 100k 8k' top.qcow2
    qemu-img snapshot -c second top.qcow2
    """
  }

  private static let snapshotSteps: [Step] = [
    .open("top.qcow2"), .write(45_000, 9000), .discard(60 << 10, 16 << 10), .flush,
    .populate(base: nil), .write(120_000, 5000), .rebase(base: nil), .write(41_000, 5000), .close,
  ]

  static let snapshots = Scenario(
    name: "snapshots", script: snapshotScript("cluster_size=4k"), steps: snapshotSteps,
    untouched: ["base.qcow2"])

  static let subclusters = Scenario(
    name: "subclusters", script: snapshotScript("cluster_size=16k,extended_l2=on"),
    steps: snapshotSteps, untouched: ["base.qcow2"])

  /// Refcount blocks for 32 KiB of file each, and a table that is full at 2 MiB.
  static let refcounts = Scenario(
    name: "refcounts",
    script: """
      qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 top.qcow2 3M
      qemu-io -f qcow2 -c 'write -q -P 1 0 1900k' top.qcow2
      """,
    steps: [
      .open("top.qcow2"), .write(1_950_000, 20_000), .write(2_000_000, 60_000), .flush,
      .discard(1024, 40_000), .flush, .write(2_100_000, 60_000), .close, .reopen,
      .write(2_200_000, 30_000), .close,
    ])

  static let encrypted = Scenario(
    name: "encrypted",
    script: """
      again qemu-img create -q -f qcow2 --object secret,id=s,data=abc \
        -o cluster_size=4k,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 \
        top.qcow2 128k
      """, secret: "abc",
    steps: [
      .open("top.qcow2"), .write(10_001, 5000), .write(65_536, 8192), .zero(11_000, 300), .flush,
      .discard(65_536, 8192), .flush, .close,
    ])

  /// What a killed daemon left, with clusters counted that nobody uses.
  static let recovery = Scenario(
    name: "recovery", script: chainScript,
    preparation: [
      .open("top.qcow2"), .write(10_001, 50_000), .discard(33 << 10, 9000), .flush,
      .write(100_000, 9000),
    ],
    steps: [.open("top.qcow2"), .write(1000, 3000), .close], untouched: ["base.raw", "mid.qcow2"])

  static let version2 = Scenario(
    name: "version 2",
    script: """
      qemu-img create -q -f qcow2 -o compat=0.10,cluster_size=4k base.qcow2 128k
      qemu-io -f qcow2 -c 'write -q -P 1 0 100k' base.qcow2
      qemu-img create -q -f qcow2 -o compat=0.10,cluster_size=4k -b base.qcow2 -F qcow2 top.qcow2
      """,
    steps: [
      .open("top.qcow2"), .write(10_001, 5000), .zero(40_000, 20_000), .discard(64 << 10, 8192),
      .flush, .populate(base: nil), .rebase(base: nil), .close,
    ], untouched: ["base.qcow2"], keepsLeaks: true)

  /// A file system that knows neither zeroing nor holes.
  static let withoutHoles = Scenario(
    name: "without holes",
    script: """
      qemu-img create -q -f raw top.raw 128k
      qemu-io -f raw -c 'write -q -P 1 0 100k' top.raw
      """, isRaw: true,
    steps: [
      .other("no fallocate") { _ in faults_stand("fallocate", EOPNOTSUPP) }, .open("top.raw"),
      .zero(10_000, 50_000), .discard(70_000, 10_000), .preallocate(110_000, 10_000), .flush,
      .close,
    ])

  /// What no driver asks of a file today, and what is done about a file that cannot be made.
  static let files = Scenario(
    name: "files",
    script: """
      head -c 40000 /dev/urandom > source; truncate -s 64k source
      truncate -s 64k top.raw target
      """, isRaw: true,
    steps: [
      .open("top.raw"),
      .other("share") { run in
        let source = try HostFile.open(
          run.path("source"), access: .readOnly, locking: .none, role: .backing)
        let target = try HostFile.open(
          run.path("target"), access: .readWrite, locking: .none, role: .active)
        // False means that the two cannot share, here or at all.
        for length in [40_960, 40_000] {
          guard try target.share(from: source, at: .zero, to: .zero, length: UInt64(length)) else {
            continue
          }
          let shared = try Workspace.bytes(run.path("target")).prefix(length)
          if shared != (try Workspace.bytes(run.path("source")).prefix(length)) {
            run.find("what was shared differs")
          }
        }
        try target.flush()
      },
      .other("make a file that cannot be used") { run in
        faults_stand("fstat", EIO)
        defer { faults_stand("fstat", 0) }
        do throws(StorageError) {
          _ = try HostFile.create(run.path("fresh"))
        } catch {
          if "\(error)".contains("fstat") { return }
          throw error
        }
        run.find("a file was made without a look at it")
      },
      .close,
    ])

  /// Somebody else has the image: whatever fails while one looks for who it is, it is refused as locked.
  static let conflict = Scenario(
    name: "conflict",
    script: "qemu-img create -q -f qcow2 -o cluster_size=4k top.qcow2 64k",
    steps: [
      .open("top.qcow2"),
      .other("open again") { run in
        do throws(StorageError) {
          _ = try HostFile.open(
            run.path("top.qcow2"), access: .readWrite, locking: .qemu, role: .active)
        } catch {
          if case .locked = error { return }
          throw error
        }
        run.find("an image was opened twice")
      },
      .close,
    ], also: "/proc")

  private static func job(_ policy: ErrorPolicy) -> Scenario {
    Scenario(
      name: "job \(policy.rawValue)", script: chainScript,
      steps: [
        .open("top.qcow2"), .write(10_001, 5000), .job(base: "base.raw", policy),
        .write(33_000, 9000), .job(base: nil, policy), .close,
      ], untouched: ["base.raw", "mid.qcow2"], extraRuns: 8,
      threads: policy == .stop ? 3 : 1)
  }

  /// A job that an earlier mount left.
  static let leftJob = Scenario(
    name: "job left", script: chainScript,
    preparation: [.open("top.qcow2"), .leaveJob(base: "base.raw")],
    steps: [.open("top.qcow2"), .resumeJob, .write(10_001, 5000), .close],
    untouched: ["base.raw", "mid.qcow2"])

  static let snapshotJob = Scenario(
    name: "job snapshots", script: snapshotScript("cluster_size=4k"),
    steps: [.open("top.qcow2"), .write(45_000, 9000), .job(base: nil, .stop), .close],
    untouched: ["base.qcow2"])
}
