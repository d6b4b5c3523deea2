import TestSupport
import Testing

/// Everything that needs real mounts. One after the other: the machine has few loop devices, and a
/// measurement wants the processor for itself.
@Suite(.serialized, .enabled(if: Requirements.areMet, "needs root, FUSE, qemu-utils and fio"))
struct MountTests {}
