import Foundation
import TestSupport

// Plays one session to a server and writes down what it says. Two players speak: the QMPClient of QEMU's
// Python library, and its qmp-shell as a person uses it, line by line. What is written down is the
// same for both: the replies in their order, and the events up to where the session waits for one.

/// The Python that plays sessions.
enum TranscriptPlayer {
  /// Where install-dependencies puts the library and its programs.
  static let place = "/opt/chainfs-tests/qemu-qmp"

  static let isPossible =
    ToolAvailability.has(["qemu-system-x86_64", "setpriv"])
    && (ProcessInfo.processInfo.environment["CI"] == "true"
      || FileManager.default.isExecutableFile(atPath: place + "/bin/qmp-shell"))

  static let script = """
    import ast, asyncio, json, os, re, socket, subprocess, sys, time
    from qemu.qmp import EventListener, ExecuteError, QMPClient

    class Library:
        # The library of QEMU's authors.
        takes_blanks = True
        def __init__(self, path):
            self.loop = asyncio.new_event_loop()
            self.client, self.listener = QMPClient("replay"), EventListener()
            self.client.register_listener(self.listener)
            self.run(self.client.connect(path))
            self.greeting = self.client.greeting._asdict()
        def run(self, work): return self.loop.run_until_complete(asyncio.wait_for(work, 60))
        def execute(self, command, arguments):
            try: return {"return": self.run(self.client.execute(command, arguments))}
            except ExecuteError as error:
                told = error.error.error
                return {"error": {"class": told.class_, "desc": told.desc}}
        def event(self): return dict(self.run(self.listener.get()))
        def close(self): self.run(self.client.disconnect())

    class Shell:
        # The program of the same authors. It tells of events when it is given a line.
        # An argument of it has no blanks, as each line of the human monitor has.
        takes_blanks = False
        greeting = None
        def __init__(self, path):
            self.events = []
            self.process = subprocess.Popen(
                [os.path.join(os.path.dirname(sys.executable), "qmp-shell"), path], text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ, HOME="."))
            assert self.said()[0].startswith("Welcome")
        def said(self):
            text = ""
            while not text.endswith("(QEMU) "):
                piece = self.process.stdout.read(1)
                assert piece, text
                text += piece
            return text[:-len("(QEMU) ")].splitlines()
        def line(self, text):
            self.process.stdin.write(text + "\\n")
            self.process.stdin.flush()
            replies = []
            for line in self.said():
                # Replies are JSON, events are printed as Python.
                message = json.loads(line) if line[1] == '"' else ast.literal_eval(line)
                (self.events if "event" in message else replies).append(message)
            return replies
        def execute(self, command, arguments):
            def word(value): return json.dumps(value, separators=(",", ":")).strip('"')
            words = [f"{name}={word(value)}" for name, value in arguments.items()]
            reply, = self.line(" ".join([command] + words))
            return reply
        def event(self):
            limit = time.monotonic() + 60
            while not self.events:
                assert time.monotonic() < limit
                assert self.line("") == []
                time.sleep(0.01)
            return self.events.pop(0)
        def close(self):
            self.process.stdin.close()
            self.process.wait()

    def play(player, session, told):
        # What the server says, each line as `told` has it.
        lines = []
        try: proceed(player, session, told, lines)
        except BaseException:
            print("\\n".join(lines[-20:]), file=sys.stderr)
            raise
        player.close()
        return lines

    def proceed(player, session, told, lines):
        def note(prefix, value):
            lines.append(prefix + json.dumps(told(value), sort_keys=True))
        if player.greeting: note("greeting ", player.greeting)
        for command, arguments in session:
            if command == "until":
                # The events up to one of this name, or of this stage of a job.
                while True:
                    event = player.event()
                    note("  ", event)
                    if arguments in (event["event"], event.get("data", {}).get("status")): break
                continue
            if command == "human-monitor-command" and not player.takes_blanks: continue
            limit = time.monotonic() + 60
            settled = None
            if command == "settled":
                # A job that has begun, and has nothing to do at this moment.
                command, settled, arguments = "query-block-jobs", arguments, {}
            while True:
                reply = player.execute(command, arguments)
                if settled is None: break
                job, = reply["return"]
                if not job["busy"] and job["offset"] > 0 and job["status"] == settled: break
                assert time.monotonic() < limit, job
            lines.append(f"> {command} {told(arguments)}")
            note("", reply)
    """
}
