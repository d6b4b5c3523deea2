internal import HostSystem
internal import ImageDriver

// How long a layer's files stay open.
//
// The chain needs them, and so does every open view of the layer or of one above it. A stream takes
// layers out of the chain while such a view is read; the files, with their locks, then go with the view:
//
//     opened      1 use, the chain's
//     view        one more while it is open
//     rebase      the chain's use ends; the last to end closes the files
//
// An image that has grown is another object over the same files, and so is a layer that a stream writes
// to, over other open files of them. What is asked here is always the newest one: only that knows which
// entries of its tables wait for the disk, and has the locks. Older open files are closed with the last
// object that reads through them.

/// Who needs the files of one layer, and the image as it is now.
final class LayerUse: Sendable {
  private struct State {
    var image: any Image
    var users = 1
  }

  private let state: Monitor<State>

  /// The files are used once, by the chain.
  init(_ image: any Image) {
    state = Monitor(State(image: image))
  }

  /// The image object that stands for the layer now.
  var image: any Image { state.withLock { $0.image } }

  /// Another object stands for the same files from here on.
  func replace(_ image: any Image) { state.withLock { $0.image = image } }

  /// One more needs the files, which are open still.
  func begin() {
    state.withLock { state in
      precondition(state.users > 0, "a layer is used whose files are closed")
      state.users += 1
    }
  }

  /// One needs them no more; the last one closes them. Nothing happens once they were closed for all.
  func end() {
    let image = state.withLock { state -> (any Image)? in
      if state.users == 0 { return nil }
      state.users -= 1
      return state.users == 0 ? state.image : nil
    }
    image?.closeFiles()
  }

  /// Closes the files for all: the disk is closed, and every read of a view is refused.
  func closeNow() {
    let image = state.withLock { state -> (any Image)? in
      defer { state.users = 0 }
      return state.users > 0 ? state.image : nil
    }
    image?.closeFiles()
  }
}
