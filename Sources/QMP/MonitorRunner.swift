package import Control

/// Carries out lines of the human monitor; a refusal is a text too, as it is in QEMU.
package struct MonitorRunner: Sendable {
  private let control: ControlPlane

  /// Gives its commands to the disks of a mount.
  package init(control: ControlPlane) {
    self.control = control
  }

  /// What a line prints, its lines ended as on a terminal.
  func run(_ line: String) -> String {
    let bytes = text(of: line).utf8.flatMap {
      $0 == UInt8(ascii: "\n") ? [UInt8(ascii: "\r"), $0] : [$0]
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Carries out a line and gives what it prints, its lines ended by newlines alone.
  package func text(of line: String) -> String {
    do throws(QMPError) { return try run(MonitorLine(line)) } catch {
      return "Error: \(error.text)\n"
    }
  }

  private func run(_ line: MonitorLine) throws(QMPError) -> String {
    do throws(ControlError) {
      switch line {
      case .text(let text): return text
      case .blockJobs: return try control.text(of: .status)
      case .block(let question): return try control.blockInfo(question)
      case .status: return "VM status: \(control.isPaused ? "paused" : "running")\n"
      case .stop: try control.stop()
      case .cont: control.cont()
      case .quit: control.quit()
      case .resize(let device, let size):
        try control.resize(device: device, node: nil, to: size)
      case .stream(let order): try control.stream(order)
      case .snapshot(let order): try control.snapshot(order)
      case .act(let action, let job): try control.act(action, onJob: job)
      }
    } catch { throw .ofBlockJob(error) }
    return ""
  }
}
