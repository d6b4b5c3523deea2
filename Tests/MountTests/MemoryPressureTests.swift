import Foundation
import TestSupport
import Testing

// A daemon and the user of a loop device on its mount share a memory limit, and far more is written than
// fits. A daemon that needs memory meanwhile hangs, and then kill -9 ends neither of the two; only a cut
// connection does. So the script that looks on stays outside of the limit, touches nothing on the mount
// while it looks, and cuts the connection when the loop device stands still.

extension MountTests {
  @Suite(
    "Memory pressure", .serialized, .timeLimit(.minutes(100)), .enabled(if: Pressure.isPossible))
  struct MemoryPressureTests {
    @Test(
      "400 MiB through a loop device in a group of 128 MiB, with the daemon in it, do not hang",
      arguments: Pressure.cases)
    func doesNotHang(pressure: Pressure) throws {
      let box = try Sandbox()
      try box.run(Pressure.base, seconds: 120)
      var hangs = 0
      for number in 1...Pressure.tries {
        let said = try box.tryRun(pressure.script(daemon: pressure.chainfs), seconds: 400)
        let lines = said.output.split(separator: "\n")
        if lines.contains("HANG") { hangs += 1 }
        #expect(lines.last == "good", "try \(number): \(said.output)\(said.errorOutput)")
      }
      print("\(pressure): \(hangs) hangs in \(Pressure.tries) tries")
      #expect(hangs == 0)
    }

    @Test(
      "QEMU's storage daemon in its place, to see that this test sees hangs",
      .enabled(if: ToolAvailability.isThere("qemu-storage-daemon") && Pressure.tries > 1))
    func reference() throws {
      let box = try Sandbox()
      try box.run(Pressure.base, seconds: 120)
      let pressure = Pressure(image: .empty, loop: .buffered)
      var hangs = 0
      for _ in 1...3 {
        let said = try box.tryRun(pressure.script(daemon: Pressure.qemu), seconds: 400)
        if said.output.contains("HANG") { hangs += 1 }
      }
      print("qemu-storage-daemon: \(hangs) hangs in 3 tries")
      #expect(hangs > 0)
    }
  }
}

/// What is written to, and how.
struct Pressure: CustomTestStringConvertible, CustomStringConvertible {
  enum Image: String, CaseIterable {
    /// Every cluster gets a new place.
    case empty
    /// Every cluster has one.
    case inPlace
    /// A stream fills the overlay meanwhile.
    case streamed
  }

  enum Loop: String, CaseIterable {
    case buffered
    case direct
  }

  var image: Image
  var loop: Loop

  var description: String { "\(image.rawValue) overlay, \(loop.rawValue) loop device" }
  var testDescription: String { description }

  /// How often each is tried; the long form is `CHAINFS_PRESSURE_TRIES=20`.
  static let tries =
    ProcessInfo.processInfo.environment["CHAINFS_PRESSURE_TRIES"].flatMap { Int($0) } ?? 1

  /// All of them in the long form, the ones that differ most in the short one.
  static var cases: [Pressure] {
    if tries == 1 {
      return [Pressure(image: .empty, loop: .buffered), Pressure(image: .streamed, loop: .direct)]
    }
    return Image.allCases.flatMap { image in Loop.allCases.map { Pressure(image: image, loop: $0) }
    }
  }

  /// A memory group can be made here.
  static let isPossible: Bool = {
    let said = try? Shell.run(
      "\(group)\nenter || exit 1\nleave", in: "/", seconds: 20)
    if said?.status == 0 { return true }
    print("skipped: no memory group can be made here, as it takes to limit a daemon's memory")
    return false
  }()

  static let base = """
    qemu-img create -q -f qcow2 base.qcow2 1G
    qemu-io -f qcow2 -c 'write -q -P 85 0 500M' base.qcow2
    """

  /// `enter` makes a group of 128 MiB whose list of processes is `$procs`, `leave` takes it away.
  private static let group = """
    enter() {
      group=$(awk '$(NF-2) == "cgroup" && $NF ~ /(^|,)memory(,|$)/ { print $5; exit }' \
        /proc/self/mountinfo)
      limit=memory.limit_in_bytes
      if [ -z "$group" ]; then
        group=$(awk '$(NF-2) == "cgroup2" { print $5; exit }' /proc/self/mountinfo)
        limit=memory.max
        echo +memory > "$group/cgroup.subtree_control" || return 1
      fi 2>/dev/null
      group=$group/chainfs-test.$$
      procs=$group/cgroup.procs
      mkdir "$group" && echo 134217728 > "$group/$limit"
    }
    leave() {
      for i in $(seq 100); do rmdir "$group" 2>/dev/null && return; sleep 0.1; done
    }
    """

  /// Starts chainfs on top.qcow2 in the group; `$place` is what is mounted, `$file` the device.
  ///
  /// The daemon that a mount leaves behind prepares its memory at another point than one in the foreground.
  var chainfs: String {
    let mount = loop == .direct ? "mount" : "mount -f"
    return """
      place=$PWD/mnt file=$PWD/mnt/vda
      bash -c "echo \\$\\$ > $procs; exec chainfs \(mount) vda=top.qcow2 mnt" 2> log & daemon=$!
      \(loop == .direct ? "wait $daemon && daemon=$(chainfs status --pid mnt) || { cat log; exit 1; }" : "")
      """
  }

  /// The same for QEMU's storage daemon.
  static let qemu = """
    place=$PWD/device file=$PWD/device
    : > device
    bash -c "echo \\$\\$ > $procs; exec qemu-storage-daemon \
      --blockdev driver=file,filename=top.qcow2,node-name=f,cache.direct=on \
      --blockdev driver=qcow2,file=f,node-name=q \
      --export type=fuse,id=e,node-name=q,mountpoint=$PWD/device,writable=on" 2> log & daemon=$!
    """

  /// One try; its last line is `good` if all was written and is there.
  func script(daemon: String) -> String {
    let fill =
      image == .inPlace
      ? "qemu-io -f qcow2 -c 'write -q -P 86 0 500M' top.qcow2; sync top.qcow2" : ""
    return """
      \(Self.group)
      connections=/sys/fs/fuse/connections
      mountpoint -q $connections || { mount -t fusectl none $connections; own=yes; }
      # In order, and without ever asking a mount that may hang.
      finish() {
        [ -z "$hung" ] || echo 1 > $connections/$number/abort
        umount "$PWD/ext" 2>/dev/null || umount -l "$PWD/ext" 2>/dev/null
        [ -z "$loop" ] || losetup -d $loop
        [ -n "$hung" ] || timeout 100 chainfs unmount "$place" 2>/dev/null
        umount -l "$place" 2>/dev/null
        # What serves no chainfs has no unmount of its own.
        [ -n "$hung" ] || kill -0 $daemon 2>/dev/null && kill $daemon 2>/dev/null
        [ -z "$hung" ] || kill -9 $daemon
        wait $daemon
        leave
        [ -z "$own" ] || umount $connections
      }
      enter || exit 1
      trap finish EXIT
      mkdir -p ext
      rm -f top.qcow2; qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
      \(fill)
      \(daemon)
      while [ -z "$number" ]; do
        kill -0 $daemon || { cat log; exit 1; }
        number=$(awk -v at="$place" '$5 == at { split($3, n, ":"); print n[2] }' \
          /proc/self/mountinfo)
        sleep 0.1
      done
      loop=$(losetup -f --show \(loop == .direct ? "--direct-io=on" : "") "$file") || exit 1
      \(image == .streamed ? "chainfs stream mnt/vda" : "")
      bash -c "echo \\$\\$ > $procs
        tr '\\0' '\\17' < /dev/zero | dd of=$loop bs=1M count=400 iflag=fullblock conv=fsync &&
        mkfs.ext4 -q -F $loop && mount $loop ext &&
        tr '\\0' '\\21' < /dev/zero | dd of=ext/file bs=1M count=400 iflag=fullblock conv=fsync
        " 2> said & writer=$!
      still=0
      while kill -0 $writer 2>/dev/null; do
        # What was done, without the time that unfinished requests have waited.
        now=$(awk '{ print $1, $3, $5, $7 }' /sys/block/${loop#/dev/}/stat)
        if [ "$now" = "$before" ]; then still=$((still + 1)); else still=0; fi
        before=$now
        if [ $still -ge 150 ]; then
          echo HANG
          cat /proc/$daemon/task/*/stack
          hung=yes
          echo 1 > $connections/$number/abort
          break
        fi
        sleep 0.2
      done
      wait $writer || { cat said log; exit 1; }
      [ -z "$hung" ] || exit 1
      finish
      trap - EXIT
      hung='' loop='' own=''
      # The file as another mount shows it, without any limit.
      qemu-img check -q top.qcow2 || exit 1
      chainfs mount -o ro vda=top.qcow2 mnt && loop=$(losetup -r -f --show mnt/vda) || exit 1
      mount -o ro,noload $loop ext && cmp -n 419430400 ext/file <(tr '\\0' '\\21' < /dev/zero)
      same=$?
      umount ext; losetup -d $loop; chainfs unmount mnt || exit 1
      [ $same = 0 ] && echo good
      """
  }
}
