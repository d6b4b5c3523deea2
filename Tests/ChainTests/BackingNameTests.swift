import HostSystem
import Testing

@testable import Chain

@Suite("Backing names")
struct BackingNameTests {
  struct Accepted: Sendable, CustomTestStringConvertible {
    var name: String
    var format: String?
    var path: String
    var meaning: BackingName.Format?
    var testDescription: String { name }
  }

  static let accepted = [
    Accepted(name: "base.qcow2", format: nil, path: "base.qcow2", meaning: nil),
    Accepted(name: "../b/base.raw", format: "raw", path: "../b/base.raw", meaning: .raw),
    Accepted(name: "/images/base", format: "qcow2", path: "/images/base", meaning: .qcow2),
    Accepted(name: "./a:b", format: "raw", path: "./a:b", meaning: .raw),
    Accepted(name: "dir/a:b", format: "file", path: "dir/a:b", meaning: .raw),
    Accepted(name: "file:/images/base", format: "raw", path: "/images/base", meaning: .raw),
    Accepted(
      name: #"json:{"driver":"qcow2","file":{"driver":"file","filename":"/b"}}"#, format: nil,
      path: "/b", meaning: .qcow2),
    Accepted(
      name: #"json:{"driver":"raw","file.driver":"file","file.filename":"b"}"#, format: "raw",
      path: "b", meaning: .raw),
    Accepted(
      name: #"json:{"driver":"file","filename":"/b"}"#, format: nil, path: "/b", meaning: .raw),
    Accepted(
      name: #"json:{"file":{"driver":"file","filename":"/b","locking":"off"}}"#, format: "qcow2",
      path: "/b", meaning: .qcow2),
    Accepted(
      name: #"json:{"driver":"raw","offset":0,"file":{"filename":"/b"}}"#, format: nil, path: "/b",
      meaning: .raw),
  ]

  @Test("a name that is understood gives path and format", arguments: accepted)
  func understood(_ row: Accepted) throws {
    let name = try BackingName(name: row.name, format: row.format, overlay: "top")
    #expect(name.path == row.path)
    #expect(name.format == row.meaning)
    #expect(name.below == .asItsHeaderSays)
  }

  static let refused = [
    ("nbd://host/export", nil, "nbd:"), ("http://host/x.qcow2", nil, "http:"),
    ("rbd:pool/image", nil, "rbd:"), ("a:b", nil, "a:"), ("", nil, "no file name"),
    ("file:", nil, "no file name"), ("base.vmdk", "vmdk", "vmdk"), ("json:{", nil, "JSON"),
    ("json:[]", nil, "object"), (#"json:{"driver":"qcow2"}"#, nil, "filename"),
    (#"json:{"driver":"qcow2","file":{"driver":"nbd","host":"h"}}"#, nil, "nbd"),
    (#"json:{"driver":"qcow2","file":"node0"}"#, nil, "filename"),
    (#"json:{"driver":"luks","file":{"driver":"file","filename":"/b"}}"#, nil, "luks"),
    (#"json:{"driver":"qcow2","offset":512,"file.filename":"/b"}"#, nil, "offset"),
    (#"json:{"driver":"raw","size":511,"file.filename":"/b"}"#, nil, "multiple of 512"),
    (#"json:{"driver":"raw","offset":-512,"file.filename":"/b"}"#, nil, "offset"),
    (#"json:{"driver":"raw","offset":"1.5k","file.filename":"/b"}"#, nil, "1.5k"),
    (#"json:{"driver":"raw","offset":"8e","file.filename":"/b"}"#, nil, "8e"),
    (#"json:{"driver":"vmdk","file.filename":"/b"}"#, nil, "qemu-img convert -f vmdk"),
    (#"json:{"driver":"raw","file":{"driver":"raw","file":{"driver":"nbd"}}}"#, nil, "nbd"),
    (#"json:{"driver":"qcow2","file.filename":["/b"]}"#, nil, "file.filename"),
    (#"json:{"driver":"qcow2","file.filename":7}"#, nil, "file.filename"),
    (
      #"json:{"driver":"qcow2","file.filename":"/b","data-file":{"filename":"x"}}"#, nil,
      "data-file"
    ),
    (#"json:{"driver":"qcow2","file.filename":"/b","file":{"filename":"/c"}}"#, nil, "twice"),
    (#"json:{"driver":"qcow2","file.filename":"/b"}"#, "raw", "contradicts"),
  ]

  @Test("a name that is not understood is refused with what it holds", arguments: refused)
  func notUnderstood(name: String, format: String?, evidence: String) {
    do {
      _ = try BackingName(name: name, format: format, overlay: "/images/top.qcow2")
      Issue.record("\(name) was taken")
    } catch {
      #expect(error.description.contains(evidence), "\(error)")
      #expect(error.description.contains("/images/top.qcow2"))
      #expect(error.kind == .unsupported)
    }
  }

  @Test("a json name may name the layers below, or none")
  func below() throws {
    let ended = try BackingName(
      name: #"json:{"driver":"qcow2","file.filename":"/b","backing":null}"#, format: nil,
      overlay: "top")
    #expect(ended.below == .nothing)
    let inner = try BackingName(
      name: #"json:{"driver":"qcow2","file.filename":"/m","#
        + #""backing":{"driver":"raw","file":{"driver":"file","filename":"/b"}}}"#,
      format: "qcow2", overlay: "top")
    #expect(inner.below == .image(BackingName(path: "/b", format: .raw)))
  }

  @Test("a raw node may show a window of its file, and windows nest")
  func windows() throws {
    let one = try BackingName(
      name: #"json:{"driver":"raw","offset":"1k","size":2048,"file.filename":"/b"}"#, format: "raw",
      overlay: "top")
    #expect(one.windows == [.init(offset: 1024, size: 2048)])
    let two = try BackingName(
      name: #"json:{"driver":"qcow2","file":{"driver":"raw","offset":7,"#
        + #""file":{"driver":"raw","size":4096,"file":{"driver":"file","filename":"/b"}}}}"#,
      format: "qcow2", overlay: "top")
    #expect(two.windows == [.init(offset: 0, size: 4096), .init(offset: 7, size: nil)])
    #expect(!one.showsTheSame(as: BackingName(path: "/b", format: .raw)))
  }

  @Test(
    "a name is spelled by another path so that it means the same",
    arguments: [
      BackingName(path: "/b", format: .raw), BackingName(path: "/b", format: .qcow2),
      BackingName(path: "/b", format: .raw, windows: [.init(offset: 512, size: 1024)]),
      BackingName(
        path: "/b", format: .raw,
        windows: [.init(offset: 512, size: 4096), .init(offset: 7, size: nil)]),
      BackingName(path: "/b", format: .qcow2, windows: [.init(offset: 65536, size: nil)]),
      BackingName(path: "/b", format: .qcow2, below: .nothing),
      BackingName(
        path: "/b", format: .qcow2,
        below: .image(
          BackingName(path: "c", format: .raw, windows: [.init(offset: 0, size: 512)]))),
    ])
  func spelled(name: BackingName) throws {
    let path = "/a \"quoted\" \\ dir/b\n"
    let again = try BackingName(
      name: name.spelled(path: path), format: name.format?.rawValue, overlay: "top")
    var wanted = name
    wanted.path = path
    #expect(again == wanted)
  }
}
