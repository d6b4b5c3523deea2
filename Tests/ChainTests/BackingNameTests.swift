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
    (#"json:{"driver":"raw","offset":512,"file.filename":"/b"}"#, nil, "offset"),
    (#"json:{"driver":"raw","size":512,"file.filename":"/b"}"#, nil, "size"),
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
}
