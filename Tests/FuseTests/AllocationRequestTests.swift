import Testing

@testable import Fuse

@Suite("AllocationRequest")
struct AllocationRequestTests {
  @Test(
    "mode bits of fallocate(2) give the request",
    arguments: [
      (0, .preallocate(keepsSize: false)), (1, .preallocate(keepsSize: true)), (3, .punchHole),
      (2, .unknown(mode: 2)), (0x10, .zeroRange(keepsSize: false)),
      (0x11, .zeroRange(keepsSize: true)), (8, .unknown(mode: 8)),
    ] as [(Int32, AllocationRequest)])
  func modes(mode: Int32, expected: AllocationRequest) {
    #expect(AllocationRequest(mode: mode) == expected)
  }
}
