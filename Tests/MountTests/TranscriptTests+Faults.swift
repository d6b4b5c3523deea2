import TestSupport
import Testing

extension MountTests.TranscriptTests {
  /// What no session of a reasonable client has: bytes that are no command, commands with wrong arguments,
  /// and lines of the human monitor that are wrong, or ask for help.
  private static let faults = #"""
    def bytes_of_faults():
        status = b'{"execute": "query-jobs", "id": %b}'
        ids = [
            b'null', b'true', b'-1', b'18446744073709551615', b'1.5', b'[]', b'{}',
            b'[1, "a", null, {"x": []}]', b'{"z": 1, "a": {"q": 1, "b": 2}}', b'01', b'1.', b'.1',
            b'+1', b'-', b'1e', b'0e', b'1e+', b'%d', b'tru', b'True', b'NaN', b'a-b', b'a1', b'_a',
            b'"a\\u00e9\\u20ac\\ud83d\\ude00z"', b'"\\u0001\\b\\f\\n\\r\\t\\/\\\\\\"\\\'\\u007f"',
            b'"\\ud800"', b'"\\ud800x"', b'"\\ud800\\u0041"', b'"\\udc00"', b'"\\uffff"',
            b'"\\ufdd0"', b'"\\ufeff"', b'"\\ud83f\\udfff"', b'"\\u12"', b'"\\u12xz9"', b'"\\u"',
            b'"\\x41"', b'\'a"b\'', b"'a\\'b'", b'"%d %%"', b'{"a": 1, "a": 2}', b'[1,]', b'[,1]',
            b'[1 2]', b'"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"', b'"\xe9"', b'"\xed\xa0\x80"',
            b'"\xef\xbf\xbf"', b'"\xf4\x90\x80\x80"', b'"\xc3"', b'"\x01"', b'"\x7f"', b'"a\xff"',
            b'\xff', b'\0', b'"a\0b"', b'"a\nb"', b'"a\tb"', b'\x0b1']
        # Brackets in one another, up to the deepest, which the request is a part of, and deeper by one.
        ids += [b'[' * n + b']' * n for n in [100, 1023, 1024]]
        return [status % text for text in ids] + [
            b'\xff{"execute": "query-jobs"}', b'\xc3\xa9', b'\0', b'{"execute": "query-jobs"}\0',
            b'{"execute":\n"query-jobs"\r\n,"id"\t:1}', b'1', b'"x"', b"'x'", b'nope', b'[]', b'{}',
            b'{"id": 1, "x": 2}', b'{"x": 2, "execute": "query-jobs"}', b'{"execute": 1, "id": 2}',
            b'{"execute": null}', b'{"execute": "query-jobs", "arguments": []}',
            b'{"execute": "query-jobs", "arguments": null, "id": 1}',
            b'{"execute": "query-jobs", "arguments": {"x": 1}}', b'{"execute": "", "id": 1}',
            b'{"execute": "no\\"pe\\u0001\\n\\u00e9"}', b'{"exec-oob": "query-jobs"}',
            b'{"execute": "query-jobs", "exec-oob": "x"}', b'{"execute": "qmp_capabilities"}',
            b'{"execute": "query_jobs"}', b'{"execute": "query-jobs"}{"execute": "query-jobs"}',
            b'{"execute": "query-jobs"}1{"execute": "query-jobs"}',
            b'{"execute": "query-jobs"}]{"execute": "query-jobs"}',
            b'{"execute": "query-jobs"}@{"execute": "query-jobs"}', b'{"execute" "query-jobs"}',
            b'{"execute": "query-jobs",}', b'{"execute": "query-jobs" "id": 1}', b'{"execute":}',
            b'{:1}', b'{1:1}', b'{null:1}', b'{"execute": "query-jobs", "execute": "query-jobs"}',
            b'}', b'{]', b'[}', b'{"a":[}]', b':', b';', b'a,b', b'1,2']
    BAD = {"string": [1, None, True, [], {}],
           "integer": ["1", 1.0, 1.5, 1e3, None, True, [], 1 << 63, -(1 << 63) - 1],
           "boolean": [1, "true", None], "word": [1, "nope", ""], "array": [1, "x", {}],
           "object": [1, "x", []]}
    # Each command with arguments that it could take, if there were such a device or job, and what they are.
    TAKEN = {
        "block-stream": {
            "device": ("nope", "string"), "job-id": ("j", "string"), "base": ("x", "string"),
            "base-node": ("y", "string"), "backing-file": ("x", "string"), "bottom": ("x", "string"),
            "speed": (0, "integer"), "on-error": ("auto", "word"), "filter-node-name": ("f", "string"),
            "auto-finalize": (True, "boolean"), "auto-dismiss": (True, "boolean")},
        "block-job-set-speed": {"device": ("nope", "string"), "speed": (1, "integer")},
        "block-job-cancel": {"device": ("nope", "string"), "force": (False, "boolean")},
        "block_resize": {"device": ("nope", "string"), "node-name": ("nope", "string"),
                         "size": (512, "integer")},
        "blockdev-snapshot-sync": {
            "device": ("nope", "string"), "node-name": ("n", "string"), "snapshot-file": ("x", "string"),
            "snapshot-node-name": ("n", "string"), "format": ("qcow2", "string"),
            "mode": ("existing", "word")},
        "transaction": {"actions": ([], "array"), "properties": ({}, "object")},
        "human-monitor-command": {"command-line": ("", "string")}}
    for name in ["pause", "resume", "complete"]: TAKEN["block-job-" + name] = {"device": ("j", "string")}
    for name in ["finalize", "dismiss"]: TAKEN["block-job-" + name] = {"id": ("j", "string")}
    for name in ["pause", "resume", "cancel", "complete", "finalize", "dismiss"]:
        TAKEN["job-" + name] = {"id": ("j", "string")}
    def arguments_that_are_wrong():
        for command, taken in TAKEN.items():
            good = {name: value for name, (value, _) in taken.items()}
            yield command, {}
            yield command, good
            yield command, dict(good, unknown=1)
            for name, (_, kind) in taken.items():
                yield command, {other: good[other] for other in good if other != name}
                for value in BAD[kind]: yield command, dict(good, **{name: value})
        for actions in [[1], [{}], [{"type": "nope"}], [{"type": "abort"}], [{"data": {}}],
                        [{"type": "abort", "data": 1}], [{"type": "abort", "data": {"x": 1}}],
                        [{"type": "abort", "data": {}, "x": 1}], [{"type": 1, "data": {}}],
                        [{"type": "blockdev-snapshot-sync", "data": {"snapshot-file": "x", "mode": 1}}]]:
            yield "transaction", {"actions": actions}
        for properties in [{"completion-mode": "x"}, {"completion-mode": 1}, {"x": 1}]:
            yield "transaction", {"actions": [], "properties": properties}
    LINES = r'''
    nope
    nope x y
    Info block
    info nope more
     info   nope
    info -v block
    info block -x
    info block --v
    info block vda x
    info block-jobs
    info block-jobs x
    info status x
    info block nope
    help nope
    help info nope more
    help info status
    help block_stream x
    help block_job_cancel
    help snapshot_blkdev
    help block nope
    ? c
    help help
    help cont|c
    block_stream
    block_stream nope
    block_stream vda 10M no-pe
    block_stream vda 1.5M nope
    block_stream vda -1
    block_stream vda +1 nope
    block_stream vda ++1 nope
    block_stream vda + 1 nope
    block_stream vda 1e2 nope
    block_stream vda 1.e2 nope
    block_stream vda 1.5e2 nope
    block_stream vda 10000P
    block_stream vda 8E
    block_stream vda 0x nope
    block_stream vda 0x10 nope
    block_stream vda 0x1.5 nope
    block_stream vda 0x7ffffffffff nope
    block_stream vda 0x80000000000 nope
    block_stream vda 1.5b nope
    block_stream vda 1.0b nope
    block_stream vda .5 nope
    block_stream vda "1" nope
    block_stream vda 1 a b
    block_stream vda 1 "a b
    block_stream vda 1 "a\x"
    block_stream "
    block_stream ""
    block_stream " vda"
    block_stream -x vda
    block_stream -
    block_stream "nope"1 2 3
    block_stream nope 1"x"
    block_job_set_speed
    block_job_set_speed vda
    block_job_set_speed vda 1.5G
    block_job_set_speed vda -5
    block_job_set_speed vda 8796093022208
    block_job_set_speed vda 99999999999999999999999999
    block_job_set_speed vda 1K x
    block_job_set_speed vda 1KiB
    block_job_cancel
    block_job_cancel vda
    block_job_cancel -f vda
    block_job_cancel -f
    block_job_cancel -fx vda
    block_job_cancel vda -f
    block_job_pause vda
    block_job_resume vda
    block_job_complete ""
    block_job_cancel "a\"b\'c\\d\ne\rf"
    block_job_cancel a"b"
    snapshot_blkdev
    snapshot_blkdev vda
    snapshot_blkdev nope x
    snapshot_blkdev n0 x
    snapshot_blkdev -n
    snapshot_blkdev -x vda
    snapshot_blkdev vda /nowhere/x bogus
    snapshot_blkdev vda /nowhere/x
    snapshot_blkdev -n vda /nowhere/x
    snapshot_blkdev vda /nowhere/x qcow2 y
    block_resize
    block_resize vda
    block_resize vda -1
    block_resize n0 1
    block_resize vda 100b
    block_resize vda 8796093022207
    block_resize vda 8E
    stop x
    s x
    cont x
    q x
    # x
    ;info
    q|quit
    '''
    LINES_OF_BLANKS = ["", "  ", "info\tblock-jobs\n", "info block-jobs\ninfo status", "info block-jobs \r",
                       "\u00e4", "block_stream v\u00e4 1\u00e4"]
    def answers(path):
        # A line for each, up to where the server says that it is done with it.
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(60)
        client.connect(path)
        file = client.makefile("rb")
        def ask(data):
            client.sendall(data + b'\n{"execute": "no-such-command", "id": "done"}\n')
            told = []
            while True:
                line = file.readline()
                assert line, data
                if b'"done"' in line: return told
                told.append(said(line))
        def said(line):
            # Members have no order, and numbers keep their digits.
            try: value = json.loads(line, parse_int=str, parse_float=str)
            except RecursionError: return sorted(line.decode())
            return json.dumps(value, sort_keys=True)
        file.readline()
        ask(b'{"execute": "qmp_capabilities"}')
        requests = bytes_of_faults()
        orders = list(arguments_that_are_wrong())
        orders += [("human-monitor-command", {"command-line": line})
                   for line in LINES.strip("\n").split("\n") + LINES_OF_BLANKS]
        requests += [json.dumps({"execute": command, "arguments": arguments}).encode()
                     for command, arguments in orders]
        lines = []
        for request in requests:
            lines.append(f"> {request}")
            lines += [str(line) for line in ask(request)]
        return lines
    """#

  @Test("whatever is wrong with a request is told as QEMU tells it")
  func faults() throws {
    let box = try Self.sandbox(
      Self.faults,
      """
      ours = answers("s")
      os.chdir("../theirs")
      with QEMU(): theirs = answers("s")
      same(ours, theirs, 1500)
      """)
    try box.run("chainfs unmount mnt; qemu-img check -q ours/n0.qcow2")
  }
}
