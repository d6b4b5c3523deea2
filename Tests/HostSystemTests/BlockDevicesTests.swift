import HostSystem
import Testing

@Suite("Block devices")
struct BlockDevicesTests {
  @Test(
    "a device number is written as the kernel writes it",
    arguments: [
      (0x35, "0:53"), (0x801, "8:1"), (0x10307, "259:7"), (0xabcf_ffff, "4095:703743"),
      (0x1000_0000_0700, "4103:0"),
    ] as [(UInt64, String)])
  func numbers(device: UInt64, name: String) {
    #expect(BlockDevices.name(of: device) == name)
  }

  @Test("nothing is below a path where nothing is")
  func nowhere() {
    #expect(BlockDevices.file(under: "/nowhere/at/all") { _, device in device != nil } == nil)
  }

  @Test("a path is asked before the host is, and its file next")
  func order() {
    var asked: [String] = []
    let found = BlockDevices.file(under: "/proc/self") { path, device in
      asked.append(device == nil ? path : "device of " + path)
      return device != nil
    }
    #expect(found == "/proc/self")
    #expect(asked == ["/proc/self", "device of /proc/self"])
  }
}
