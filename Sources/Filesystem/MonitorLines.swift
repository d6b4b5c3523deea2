package import Control
internal import HostSystem

/// Carries out a line of the human monitor and gives what it prints, each line with a newline.
package typealias LineRunner = @Sendable (_ line: String, _ control: ControlPlane) -> String

/// Carries out the lines of all open monitors of a mount, and knows when none goes on any more.
final class MonitorLines: Sendable {
  private let run: @Sendable (String) -> String
  private let threads = Monitor(0)

  init(_ run: @escaping @Sendable (String) -> String) {
    self.run = run
  }

  /// Runs `body` on a thread of its own, with what gives the text of a line.
  func start(
    _ body: @escaping @Sendable (_ run: (String) -> String) -> Void
  ) throws(SystemError) {
    threads.withLock { $0 += 1 }
    do throws(SystemError) {
      _ = try Worker(name: "monitor") { [self] in
        body(run)
        end()
      }
    } catch {
      end()
      throw error
    }
  }

  private func end() { threads.change { $0 -= 1 } }

  /// Waits until no line goes on. None may come after this.
  func finish() { threads.wait(while: { $0 > 0 }) }
}
