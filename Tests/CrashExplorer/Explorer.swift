// The work of a run and who does it.
//
//     session threads   run workloads, and sessions on crashes that are gone on with; hand out crash points
//     judge threads     make the crashes of each point and judge them
//
// A crash cannot be judged where it happens: that is in the middle of a call of the driver, which has this
// thread's buffers in use. Points wait in a queue of limited length. Judges never wait for sessions, so
// the queue always moves.

import Foundation
import HostSystem
import Synchronization
import TestSupport

/// A moment at which the power may go.
struct CrashPoint: Sendable {
  var template: Template
  var session: StateName
  /// The number of its first state.
  var first: Int
  var count: Int
  var moment: SimulatedFiles.Moment
  var expectation: Expectation
  var change: String
}

/// One run of the explorer.
final class Explorer: Sendable {
  /// What a run is asked to do.
  struct Wishes: Sendable {
    var states: Int
    var seed: UInt64
    var threads: Int
    /// Just this state.
    var only: StateName?
    /// Just this shape.
    var shape: Int?
    /// Where to put the files of a state that is run alone.
    var saved: String?
  }

  private struct Work {
    var points: [CrashPoint] = []
    var sessions: [Session] = []
    var workloads = 0
    var sessionsRunning = 0
    var judging = 0
    var isOver = false
  }

  let wishes: Wishes
  let tally = Tally()
  private let work = Monitor(Work())
  private let templates = Monitor<[Int: Template?]>([:])
  // Relaxed: it only decides when to stop.
  private let judged = Atomic<Int>(0)
  private static let mostPoints = 48
  private static let mostSessions = 64
  private static let mostDepth = 3
  /// One state in so many is gone on with, after one, two and three crashes.
  private static let goesOnEvery = [40, 150, 400]
  /// One state in so many is shown to qemu-img.
  private static let askQEMUEvery = 2500

  init(_ wishes: Wishes) { self.wishes = wishes }

  var seed: UInt64 { wishes.seed }

  /// Enough states were looked at, or enough went wrong.
  var isDone: Bool {
    wishes.only == nil
      && (judged.load(ordering: .relaxed) >= wishes.states || tally.failureCount > 200)
  }

  /// Does all the work; gives how many states were judged.
  func run() throws -> Int {
    var workers: [Worker] = []
    for number in 0..<wishes.threads {
      workers.append(try Worker(name: "session \(number)") { self.runSessions() })
      workers.append(try Worker(name: "judge \(number)") { self.judgePoints() })
    }
    for worker in workers { worker.join() }
    return judged.load(ordering: .relaxed)
  }

  // MARK: - Sessions

  private enum Next {
    case session(Session)
    case workload(Int)
    case nothing
  }

  private func runSessions() {
    while true {
      let next = work.wait { work -> Next? in
        if work.isOver { return .nothing }
        if self.isDone { work.sessions = [] }
        if let session = work.sessions.popLast() {
          work.sessionsRunning += 1
          return .session(session)
        }
        let mayBegin = self.wishes.only == nil ? !self.isDone : work.workloads == 0
        if mayBegin {
          work.workloads += 1
          work.sessionsRunning += 1
          return .workload(self.wishes.only?.workload ?? work.workloads - 1)
        }
        if work.sessionsRunning == 0, work.judging == 0, work.points.isEmpty {
          work.isOver = true
          return .nothing
        }
        return nil
      }
      switch next {
      case .session(let session): session.run()
      case .workload(let number): runWorkload(number)
      case .nothing, nil:
        work.notifyAll()
        return
      }
      work.change { $0.sessionsRunning -= 1 }
    }
  }

  private func runWorkload(_ number: Int) {
    let index = wishes.shape ?? Int((UInt64(number) &* 37 &+ seed % 1009) % UInt64(Shape.count))
    do {
      Session(self, try template(index), workload: number).run()
    } catch {
      fail(StateName(workload: number, numbers: []), "\(error)")
    }
  }

  /// The images of a shape, made at the first use.
  private func template(_ index: Int) throws -> Template {
    let ready = templates.wait { templates -> Template?? in
      guard let entry = templates[index] else {
        templates[index] = .some(nil)
        return .some(nil)
      }
      // Another thread makes them.
      guard let template = entry else { return nil }
      return template
    }
    if let ready, let template = ready { return template }
    do {
      let made = try Template(Shape(index))
      templates.change { $0[index] = made }
      return made
    } catch {
      templates.change { _ = $0.removeValue(forKey: index) }
      throw error
    }
  }

  // MARK: - Judging

  /// Takes a crash point, and waits while too many are there.
  func submit(_ point: CrashPoint) {
    if isDone { return }
    if let only = wishes.only {
      let depth = point.session.numbers.count
      guard depth < only.numbers.count,
        (point.first..<point.first + point.count).contains(only.numbers[depth])
      else { return }
    }
    work.wait(while: { $0.points.count >= Self.mostPoints })
    work.change { $0.points.append(point) }
  }

  private func judgePoints() {
    while true {
      let point = work.wait { work -> CrashPoint?? in
        if work.isOver { return .some(nil) }
        guard !work.points.isEmpty else { return nil }
        work.judging += 1
        return work.points.removeFirst()
      }
      guard let point, let point else { return }
      work.notifyAll()
      for number in point.first..<point.first + point.count { judge(point, number) }
      work.change { $0.judging -= 1 }
    }
  }

  private func judge(_ point: CrashPoint, _ number: Int) {
    let name = point.session.appending(number)
    if let only = wishes.only, !only.numbers.starts(with: name.numbers) { return }
    var random = SeededGenerator(seed: name.seed(seed))
    let left = point.moment.crash(seed: random.next())
    let depth = name.numbers.count
    let goesOn = random.oneIn(Self.goesOnEvery[min(depth, 3) - 1]) && depth <= Self.mostDepth
    let isThorough = random.oneIn(8)
    let asksQEMU = random.oneIn(Self.askQEMUEvery) || wishes.only == name
    if wishes.only == name, let place = wishes.saved { save(left, to: place) }
    let judge = Judge(
      template: point.template, expectation: point.expectation,
      files: goesOn ? left.copied() : left, isThorough: isThorough, asksQEMU: asksQEMU)
    do {
      let found = try judge.judge()
      if goesOn {
        let next = Session(
          self, point.template, name, left, point.expectation.after(found), seed: random.next())
        work.change { work in
          if work.sessions.count < Self.mostSessions || wishes.only != nil {
            work.sessions.append(next)
          }
        }
      }
    } catch {
      fail(
        name,
        "\(point.template.shape.name)\n  \(point.expectation.operation), after \(point.change): \(error)"
      )
    }
    judged.wrappingAdd(1, ordering: .relaxed)
    tally.add(point, depth: depth)
  }

  private func save(_ files: SimulatedFiles, to place: String) {
    for name in files.names {
      guard let disk = files.disk(name) else { continue }
      try? Data(disk.snapshot.all).write(to: URL(fileURLWithPath: place + name))
    }
  }

  // MARK: - What came of it

  /// Notes a failure, with the command that repeats just it.
  func fail(_ name: StateName, _ text: String) {
    var line = "crash-explorer --seed \(seed)"
    if let shape = wishes.shape { line += " --shape \(shape)" }
    line += name.numbers.isEmpty ? " --state \(name).0" : " --state \(name)"
    tally.fail("FAILED \(text)\n  \(line)")
  }

  /// Notes a session that came to its end.
  func count(session name: StateName) { tally.end(depth: name.numbers.count) }
}
