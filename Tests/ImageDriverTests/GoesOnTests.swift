import BlockIO
import HostSystem
import TestSupport
import Testing

@testable import ImageDriver

@Suite("Qcow2Image after a failure")
struct GoesOnTests {
  @Test("an image that goes on after any one call failed never uses a cluster that is not counted")
  func everyCall() throws {
    var call = 1
    var isOver = false
    while !isOver {
      let disk = SimulatedDisk(seed: 9)
      var options = ImageBuilder.Options(virtualSize: 256 << 10)
      options.clusterSize = 512
      options.refcountBits = 64
      try ImageBuilder.create(on: disk, options)
      let image = try Qcow2Image(storage: disk)
      disk.inject(.fails(call: disk.callCount + call))
      let before = disk.callCount
      for step in 0..<12 {
        do {
          // A ticket that is given up leaves a run of its own to be given back.
          if step % 3 == 1 {
            let range = GuestRange(offset: GuestOffset(200 << 10), length: 2048)
            _ = try image.beginPopulate(range)
          }
          try image.put([UInt8](repeating: UInt8(step), count: 9000), at: step * 20_000)
          // As a snapshot that is refused at the end does; the disk goes on with the image.
          if step % 4 == 3 { try image.close() }
        } catch is ImageError {
        } catch is StorageError {
        }
      }
      isOver = disk.callCount < before + call
      disk.inject(nil)
      do { try image.close() } catch {}
      #expect(try Audit(disk).faults == [], "call \(call)")
      call += 1
    }
    #expect(call > 50)
  }
}
