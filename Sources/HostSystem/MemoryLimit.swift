// How much memory the process may use, if it may not use all of the machine's.
//
//     /proc/self/cgroup        which group:      4:memory:/docker/ab   (v1)    0::/docker/ab   (v2)
//     /proc/self/mountinfo     where it is seen: ... /docker/ab /sys/fs/cgroup/memory ... cgroup ... memory
//     memory.stat, memory.max  the limit of the group and of those above it
//
// In a container the mount shows the group itself, and what lies above is out of sight; then the limit
// that counts is in sight all the same, for it is the container's.

internal import Glibc

/// The limit of the memory group that this process is in.
package enum MemoryLimit {
  /// The bytes that the process's group may use; nil if that is not less than the machine has.
  package static func ofProcess() -> UInt64? {
    let machine = UInt64(sysconf(Int32(_SC_PHYS_PAGES))) * UInt64(sysconf(Int32(_SC_PAGESIZE)))
    let limit = limit(
      groups: SystemCall.text(of: "/proc/self/cgroup"),
      mounts: SystemCall.text(of: "/proc/self/mountinfo"), file: SystemCall.text)
    return limit.flatMap { $0 < machine ? $0 : nil }
  }

  /// The smallest limit that the tables of the kernel lead to; `file` gives what a file holds.
  static func limit(
    groups: String?, mounts: String?, file: (String) -> String?
  ) -> UInt64? {
    guard let groups, let mounts else { return nil }
    var smallest: UInt64?
    for line in groups.split(separator: "\n") {
      let words = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard words.count == 3 else { continue }
      let isUnified = words[0] == "0" && words[1].isEmpty
      if !isUnified, !words[1].split(separator: ",").contains("memory") { continue }
      for mount in mounts.split(separator: "\n") {
        guard let directory = directory(of: words[2], isUnified: isUnified, in: mount) else {
          continue
        }
        let found =
          isUnified
          ? unified(directory.place, below: directory.top, file: file)
          : hierarchical(file(directory.place + "/memory.stat"))
        if let found { smallest = min(smallest ?? found, found) }
      }
    }
    return smallest
  }

  /// Where a line of mountinfo shows a group, and the directory above which nothing is seen.
  private static func directory(
    of group: Substring, isUnified: Bool, in mount: Substring
  ) -> (place: String, top: String)? {
    let words = mount.split(separator: " ")
    // The type and the options come behind a lonely dash, whose place varies.
    guard words.count > 6, let dash = words.dropFirst(6).firstIndex(of: "-"),
      dash + 3 < words.count
    else { return nil }
    if isUnified {
      if words[dash + 1] != "cgroup2" { return nil }
    } else if words[dash + 1] != "cgroup"
      || !words[dash + 3].split(separator: ",").contains("memory")
    {
      return nil
    }
    let root = words[3] == "/" ? "" : String(words[3])
    let top = String(words[4])
    // Seen from inside of a container a path may not begin with the mount's root.
    let rest = group.hasPrefix(root + "/") ? group.dropFirst(root.count) : ""
    return (rest == "/" ? top : top + rest, top)
  }

  /// Version 1 says in one line what the group and all above it come to.
  private static func hierarchical(_ statistics: String?) -> UInt64? {
    for line in statistics?.split(separator: "\n") ?? [] {
      let words = line.split(separator: " ")
      if words.count == 2, words[0] == "hierarchical_memory_limit" { return UInt64(words[1]) }
    }
    return nil
  }

  /// Version 2 has a limit, or the word `max`, in each group.
  private static func unified(
    _ place: String, below top: String, file: (String) -> String?
  ) -> UInt64? {
    var smallest: UInt64?
    var directory = place
    while directory.count >= top.count {
      if let text = file(directory + "/memory.max"),
        let limit = UInt64(text.prefix { $0 != "\n" })
      {
        smallest = min(smallest ?? limit, limit)
      }
      guard let slash = directory.lastIndex(of: "/") else { break }
      directory = String(directory[..<slash])
    }
    return smallest
  }
}
