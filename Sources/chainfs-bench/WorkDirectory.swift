import Glibc
import HostSystem

// A row mounts file systems, sets up loop devices and starts daemons, all below one directory. They
// have to go however the program ends: an error, SIGINT, SIGTERM, SIGKILL. So it is not the program that
// takes them down but a keeper, a shell in a session of its own that reads from a pipe of which only we
// hold the other end. When that closes, by us or because we are gone, the keeper clears the directory.

/// A directory that goes with the work in it or with the program, with whatever is mounted in it.
enum WorkDirectory {
  /// Runs `body` with the path of a new directory in `parent`.
  static func with<Result>(in parent: String, _ body: (String) throws -> Result) throws -> Result {
    let made = try Tool.run("mktemp -d \(ShellWord("\(parent)/chainfs-bench.XXXXXX"))")
    let path = String(made.prefix { $0 != "\n" })
    let command =
      "exec setsid bash -c \(ShellWord(Self.keeper)) keeper \(ShellWord(path)) 1>&2"
    // Alive: the stream is this function's own, from here to pclose, which waits for the keeper.
    guard let pipe = unsafe popen(command, "we") else {
      throw SystemError(call: "popen", number: errno)
    }
    defer {
      if unsafe pclose(pipe) != 0 { Tool.say("\(path) could not be cleared") }
    }
    return try body(path)
  }

  /// Unmounts what the kernel has mounted there, from the top; then the devices and the daemons below.
  /// Looks again afterwards: a script that died with us may have mounted something meanwhile.
  private static let keeper = """
    trap '' INT TERM HUP
    cat > /dev/null
    top=$1
    mounts() { awk -v top="$top/" 'index($2, top) == 1 { print $2 }' /proc/mounts | tac; }
    loops() { losetup -nO NAME,BACK-FILE | awk -v top="$top/" 'index($2, top) == 1 { print $1 }'; }
    daemons() {
      cat "$top"/*.pid 2> /dev/null | while read -r id; do
        if grep -qsF "$top" /proc/$id/cmdline; then echo $id; fi
      done
    }
    for signal in TERM TERM TERM TERM KILL KILL; do
      for place in $(mounts); do umount -l "$place"; done
      for device in $(loops); do losetup -d "$device"; done
      for id in $(daemons); do kill -$signal $id; done
      [ -n "$(mounts)$(loops)$(daemons)" ] || break
      sleep 0.5
    done
    rm -rf --one-file-system "$top"
    [ ! -e "$top" ]
    """
}
