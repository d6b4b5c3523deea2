import Testing

@testable import HostSystem

@Suite struct MemoryLimitTests {
  private static let first = """
    30 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
    32 30 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
    35 30 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory

    """
  private static let inContainer = """
    35 30 0:32 /docker/ab /sys/fs/cgroup/memory ro,relatime master:9 - cgroup cgroup rw,memory

    """
  private static let second = """
    30 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate

    """

  @Test(
    "the limit is found where the kernel's tables say, in both versions and in containers",
    arguments: [
      ("4:memory:/a/b\n0::/\n", first, "/sys/fs/cgroup/memory/a/b/memory.stat", 5),
      ("4:memory:/\n", first, "/sys/fs/cgroup/memory/memory.stat", 5),
      ("7:cpu,memory:/a\n", first, "/sys/fs/cgroup/memory/a/memory.stat", 5),
      ("4:memory:/docker/ab\n", inContainer, "/sys/fs/cgroup/memory/memory.stat", 5),
      ("4:memory:/docker/ab/c\n", inContainer, "/sys/fs/cgroup/memory/c/memory.stat", 5),
      ("4:memory:/\n", inContainer, "/sys/fs/cgroup/memory/memory.stat", 5),
      ("4:cpu:/a\n", first, "/sys/fs/cgroup/memory/a/memory.stat", nil),
      ("0::/a/b\n", second, "/sys/fs/cgroup/a/b/memory.max", 7),
      ("0::/a/b\n", second, "/sys/fs/cgroup/a/memory.max", 7),
      ("0::/\n", second, "/sys/fs/cgroup/memory.max", 7),
      ("0::/a\n", second, "/sys/fs/cgroup/other/memory.max", nil),
      ("", first, "/sys/fs/cgroup/memory/memory.stat", nil),
      ("nonsense\n4:memory\n", "nonsense - x\n", "/", nil),
    ] as [(String, String, String, UInt64?)])
  func places(groups: String, mounts: String, path: String, limit: UInt64?) {
    let found = MemoryLimit.limit(groups: groups, mounts: mounts) { file in
      guard file == path else { return nil }
      return file.hasSuffix("max") ? "7\n" : "cache 1\nhierarchical_memory_limit 5\nrss 2\n"
    }
    #expect(found == limit)
  }

  @Test("the smallest limit on the way up counts, and max is none")
  func smallest() {
    let files = [
      "/sys/fs/cgroup/a/b/c/memory.max": "max\n", "/sys/fs/cgroup/a/b/memory.max": "300\n",
      "/sys/fs/cgroup/a/memory.max": "200\n", "/sys/fs/cgroup/memory.max": "400\n",
    ]
    #expect(
      MemoryLimit.limit(groups: "0::/a/b/c\n", mounts: Self.second) { files[$0] } == 200)
    #expect(
      MemoryLimit.limit(groups: "0::/a/b/c\n", mounts: Self.second) { _ in "max\n" } == nil)
    #expect(MemoryLimit.limit(groups: nil, mounts: Self.second) { _ in "1\n" } == nil)
  }

  @Test("the reserve grows with threads and devices and leaves two thirds of the limit")
  func reserve() {
    #expect(ServingMemory.reserve(threads: 4, devices: 1, limit: 1 << 30) == 36 << 20)
    #expect(ServingMemory.reserve(threads: 8, devices: 2, limit: 1 << 30) == 72 << 20)
    #expect(ServingMemory.reserve(threads: 64, devices: 1, limit: 96 << 20) == 32 << 20)
    #expect(ServingMemory.reserve(threads: 64, devices: 900, limit: 1 << 40) == 256 << 20)
  }

  @Test(
    "a capability is read from what the kernel tells of the process",
    arguments: [
      ("Name:\tx\nCapEff:\t0000000000004000\nCapBnd:\t0\n", true),
      ("CapPrm:\t0000000000004000\nCapEff:\t000001ffffffbfff\n", false),
      ("CapEff:\tnonsense\n", false), ("", false), (nil, false),
    ] as [(String?, Bool)])
  func capability(status: String?, isThere: Bool) {
    #expect(ResourceLimit.isCapable(inStatus: status, of: 14) == isThere)
  }
}
