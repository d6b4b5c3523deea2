import Control
import Testing

@testable import QMP

@Suite struct MonitorWordTests {
  @Test(
    "the end of a line is a word of a role, of so many characters",
    arguments: [
      ("", MonitorWord.Role.command, "", 0), ("  ", .command, "", 0), ("inf", .command, "inf", 3),
      ("info ", .subject, "", 0), ("info block-", .subject, "block-", 6),
      ("info block v", .device, "v", 1), ("info block-jobs ", .other, "", 0),
      ("help in", .command, "in", 2), ("? info b", .subject, "b", 1), ("help help ", .other, "", 0),
      ("block_stream ", .device, "", 0), ("block-stream vd", .device, "vd", 2),
      ("block_stream vda 1", .other, "1", 1),
      ("block_stream vda 1M ba", .base(device: "vda"), "ba", 2),
      ("block_stream vda 1M base ", .other, "", 0),
      ("block_job_cancel -f v", .device, "v", 1), ("block_job_set_speed vda ", .other, "", 0),
      ("snapshot_blkdev -n vda /tm", .file, "/tm", 3),
      ("snapshot_blkdev vda \"/a b", .file, "/a b", 5),
      ("snapshot_blkdev vda \"/a \\\"", .file, "/a \"", 6),
      ("snapshot_blkdev vda \"/a\u{fc}", .file, "/a\u{fc}", 4),
      ("snapshot_blkdev vda \"/a b\" q", .format, "q", 1), ("nonsense v", .other, "v", 1),
    ])
  func ends(line: String, role: MonitorWord.Role, text: String, length: Int) {
    let word = MonitorWord(endOf: line)
    #expect(word.role == role)
    #expect(word.text == text)
    #expect(word.length == length)
  }

  @Test(
    "a word is written so that the line gives it back",
    arguments: ["vda", "/a b", "/a\"b", "/a \\b", "/a\nb", "\u{fc} "], ["", "\""])
  func written(text: String, typed: String) throws {
    let line = "snapshot_blkdev vda "
    let written = MonitorWord(endOf: line + typed).written(as: text, .complete)
    #expect(written.hasSuffix(" "))
    guard case .snapshot(let order) = MonitorLine(line + written) else {
      Issue.record("no snapshot: \(written)")
      return
    }
    #expect(order.file == text)
    // One that goes on is found again as it was left.
    let open = MonitorWord(endOf: line + MonitorWord(endOf: line + typed).written(as: text, .open))
    #expect(open.text == text)
  }
}
