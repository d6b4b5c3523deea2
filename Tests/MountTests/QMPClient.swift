import TestSupport

/// A client of QMP in a few lines of Python, for scripts: `c(command, name=value...)` is what a command
/// returns, `c.fails` how it fails, `c.events` what came meanwhile.
enum QMPClient {
  /// The text of the module `client`.
  static let text = """
    import json, os, select, socket, sys, time
    class Client:
        def __init__(self, path="s", negotiate=True):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(40)
            self.socket.connect(path)
            self.file = self.socket.makefile("r", encoding="utf-8", newline="\\n")
            self.events = []
            self.greeting = self.line()
            if negotiate: assert self("qmp_capabilities") == {}
        def line(self):
            line = self.file.readline()
            if not line: raise EOFError
            assert line.endswith("\\r\\n")
            return json.loads(line)
        def send(self, data): self.socket.sendall(data)
        def reply(self):
            while True:
                message = self.line()
                if "event" not in message: return message
                self.events.append(message)
        def raw(self, command, arguments={}):
            self.send(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\\n")
            return self.reply()
        def __call__(self, command, **arguments):
            names = {name.replace("_", "-"): value for name, value in arguments.items()}
            return self.raw(command if command == "qmp_capabilities" else command.replace("_", "-"),
                            names)["return"]
        def fails(self, command, **arguments):
            names = {name.replace("_", "-"): value for name, value in arguments.items()}
            error = self.raw(command, names)["error"]
            return error["class"] + ": " + error["desc"]
        def until(self, name):
            while not any(name == e["event"] or name == e["data"].get("status")
                          for e in self.events):
                message = self.line()
                assert "event" in message, message
                self.events.append(message)
        def words(self):
            return " ".join(e["data"].get("status") or e["event"] for e in self.events)
        def hmp(self, line): return self("human-monitor-command", command_line=line)
    def drain(c, *ids):
        "Waits until no job is left, and gives how those of these ids ended."
        ends = lambda: {e["data"]["device"]: e["data"].get("error") for e in c.events
                        if e["event"] == "BLOCK_JOB_COMPLETED"}
        while set(ids) - set(ends()): c.events.append(c.line())
        while c("query-jobs"): time.sleep(0.01)
        return ends()
    def chain(c):
        "The file names of the layers, active image first."
        return [n["file"].split("/")[-1] for n in c("query-named-block-nodes", flat=True)]
    """
}

extension Sandbox {
  /// Runs a script of Python with what a module has that lies in the directory, such as `client`.
  @discardableResult
  func python(
    _ script: String, from module: String = "client", seconds: Double = 60
  ) throws -> String {
    try run(
      "timeout -s KILL \(Int(seconds)) python3 - <<'END'\nfrom \(module) import *\n\(script)\nEND",
      seconds: seconds + 5)
  }
}
