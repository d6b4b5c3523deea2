internal import QMP

/// What the words of a monitor line may be, on one mount.
struct MonitorChoices {
  let target: ControlTarget

  /// The words that may stand in place of one, sorted; none where the mount does not tell.
  func callAsFunction(_ word: MonitorWord) -> [WordCompletion.Choice] {
    do {
      switch word.role {
      case .command: return words(MonitorWord.commands)
      case .subject: return words(MonitorWord.subjects)
      case .device: return words(try target.devices)
      case .base(let device): return words(try bases(of: device))
      case .file: return try files(word.text)
      case .format: return words(["qcow2"])
      case .other: return []
      }
    } catch {
      return []
    }
  }

  private func words(_ words: [String]) -> [WordCompletion.Choice] {
    Set(words).sorted().map { .init(word: $0) }
  }

  /// The layers that a stream can keep: by the names of their files, and by their paths.
  private func bases(of device: String) throws -> [String] {
    let layers = try target.read("chain", of: device).split(separator: "\n").dropFirst()
    let paths = layers.compactMap { $0.split(separator: "\t").last.map(String.init) }
    return paths + paths.compactMap { $0.split(separator: "/").last.map(String.init) }
  }

  /// The files that a path may mean. A snapshot's path is absolute, so the first one leads here.
  private func files(_ text: String) throws -> [WordCompletion.Choice] {
    guard let slash = text.lastIndex(of: "/") else {
      let here = try AbsolutePath.of(".")
      return [.init(word: here == "/" ? here : here + "/", goesOn: true)]
    }
    let directory = String(text[...slash])
    let isHidden = text[text.index(after: slash)...].hasPrefix(".")
    return try Files.names(in: directory).sorted()
      .filter { isHidden == $0.hasPrefix(".") && $0 != "." && $0 != ".." }
      .map { name in
        let isDirectory = Files.isDirectory(directory + name)
        return .init(word: directory + name + (isDirectory ? "/" : ""), goesOn: isDirectory)
      }
  }
}
