import TestSupport

// How an image of the matrix is made: by qemu-img and qemu-io alone.
//
//     base0 <- base1 <- ... <- top        base0 is raw, or qcow2, or an image in a window of a file
//
// All of it lies in one box, with `expected.raw`, the disk that the image shows, `below.sums` over
// the layers below it, and `snapshot-NAME.raw` for each internal snapshot.

/// An image of the matrix in a box.
struct MatrixImage {
  let form: MatrixForm
  let box: Sandbox
  /// The bytes of the disk.
  let size: Int

  init(_ form: MatrixForm, in box: Sandbox, random: inout SeededGenerator) throws {
    self.form = form
    self.box = box
    // Some clusters at least, and an end that is in the middle of one.
    let clusters = (form.clusterBits >= 18 ? 2 : 16) << form.clusterBits
    size = min(max(clusters, 1 << 20), 6 << 20) + Int.random(in: 0..<64, using: &random) * 512
    try makeLayers(&random)
    try makeTop(&random)
  }

  // MARK: - Below

  /// The name of a layer's file, 0 for the lowest.
  private func layer(_ index: Int) -> String { "base\(index)" }

  /// The flags by which an overlay names the layer below it.
  private func backingFlags(_ index: Int, naming: MatrixForm.Naming) -> String {
    let path = "\(box.path)/\(layer(index))"
    let file = #"{"driver":"file","filename":"\#(path)"}"#
    let isRaw = index == 0 && (form.naming == .raw || form.naming == .window)
    let format = isRaw ? "raw" : "qcow2"
    let name =
      switch naming {
      case .absolute: path
      case .json: #"json:{"driver":"\#(format)","file":\#(file)}"#
      case .window where isRaw:
        #"json:{"driver":"raw","offset":\#(Self.window),"size":\#(baseSize),"file":\#(file)}"#
      case .relative, .raw, .nested, .window: layer(index)
      }
    return "-b '\(name)' -F \(format)"
  }

  private static let window = 7 * 512

  private var baseSize: Int {
    switch form.below {
    case .shorter: size / 2 / 512 * 512
    case .larger: size + 300 * 512
    case .equal, .nothing: size
    }
  }

  private func makeLayers(_ random: inout SeededGenerator) throws {
    guard form.depth > 0 else { return }
    switch form.naming {
    case .raw:
      try box.run("head -c \(baseSize) /dev/urandom > base0; fallocate -p -o 8192 -l 99000 base0")
    case .window:
      try box.run("head -c \(baseSize + Self.window + 900) /dev/urandom > base0")
    default:
      try box.run(
        """
        qemu-img create -q -f qcow2 -o cluster_size=\(pick(["512", "4k", "64k"], &random)) base0 \
          \(baseSize)
        \(work("base0", baseSize, steps: 6, &random))
        """)
    }
    for index in 1..<max(form.depth, 1) {
      // A layer between may be shorter than both its neighbours.
      let length = random.oneIn(3) ? baseSize / 3 / 512 * 512 : baseSize
      let naming: MatrixForm.Naming = form.naming == .nested ? .json : form.naming
      let options = ["compat=0.10", "cluster_size=4k", "cluster_size=2M", "compression_type=zstd"]
      try box.run(
        """
        qemu-img create -q -f qcow2 -o \(pick(options, &random)) \
          \(backingFlags(index - 1, naming: naming)) \(layer(index)) \(length)
        \(work(layer(index), length, steps: 4, &random))
        """)
    }
    try box.run("sha256sum base? > below.sums")
  }

  // MARK: - The image itself

  /// Words that open an image of the box with QEMU's tools.
  func opened(_ name: String) -> String {
    guard form.isEncrypted, name == "top" else { return "-f qcow2 \(name)" }
    return "--object secret,id=s,file=secret --image-opts "
      + "driver=qcow2,encrypt.key-secret=s,file.filename=\(name)"
  }

  private var options: String {
    var words = [
      "compat=\(form.version == 2 ? "0.10" : "1.1")", "cluster_size=\(1 << form.clusterBits)",
      "refcount_bits=\(form.refcountBits)", "preallocation=\(form.preallocation)",
    ]
    if form.hasExtendedL2 { words.append("extended_l2=on") }
    if form.hasLazyRefcounts { words.append("lazy_refcounts=on") }
    if form.compression == .zstd { words.append("compression_type=zstd") }
    if form.dataFile != .none { words.append("data_file=top.data") }
    if form.dataFile == .raw { words.append("data_file_raw=on") }
    if form.isEncrypted {
      words += ["encrypt.format=luks", "encrypt.key-secret=s", "encrypt.iter-time=10"]
    }
    return words.joined(separator: ",")
  }

  private func makeTop(_ random: inout SeededGenerator) throws {
    let secret = form.isEncrypted ? "--object secret,id=s,file=secret" : ""
    let below =
      form.depth == 0
      ? "" : backingFlags(form.depth - 1, naming: form.depth == 1 ? form.naming : topNaming)
    // A relative name in a json: string resolves from the directory that qemu-img runs in.
    try box.run(
      """
      printf 'open sesame' > secret
      again qemu-img create -q -f qcow2 \(secret) -o '\(options)' \(below) top \(size)
      \(compressedWork(&random))
      \(work("top", size, steps: 4, &random))
      """)
    for snapshot in 0..<form.snapshots {
      try box.run(
        """
        qemu-img snapshot \(snapshotWords("-c n\(snapshot)"))
        qemu-img convert \(openedSnapshot(snapshot)) -O raw snapshot-n\(snapshot).raw
        \(work("top", size, steps: 2, &random))
        """)
    }
    try box.run("qemu-img convert \(opened("top")) -O raw expected.raw")
    try checkClean("top")
  }

  private var topNaming: MatrixForm.Naming {
    form.naming == .raw || form.naming == .window ? .relative : form.naming
  }

  private func snapshotWords(_ verb: String) -> String {
    form.isEncrypted ? "\(verb) \(opened("top"))" : "\(verb) top"
  }

  /// Words by which `qemu-img convert` opens an internal snapshot.
  func openedSnapshot(_ number: Int) -> String { "-l n\(number) \(opened("top"))" }

  /// Fails unless QEMU finds no error and no leak.
  func checkClean(_ name: String) throws { try box.run("qemu-img check -q \(opened(name))") }

  // MARK: - Contents

  /// A qemu-io call that writes, zeroes and discards at places that `random` gives.
  func work(
    _ name: String, _ size: Int, steps: Int, _ random: inout SeededGenerator
  ) -> String {
    var commands: [String] = []
    let cluster = 1 << form.clusterBits
    for _ in 0..<steps {
      let place = Int.random(in: 0..<size / 512, using: &random) * 512
      let most = min(size - place, random.oneIn(3) ? 400_000 : 40_000) / 512
      let range = "\(place) \(Int.random(in: 1...max(most, 1), using: &random) * 512)"
      commands.append("write -q -P \(Int.random(in: 1...255, using: &random)) \(range)")
      guard name == "top" else { continue }
      let start = Int.random(in: 0..<max(size / cluster, 1), using: &random) * cluster
      let whole = "\(start) \(min(cluster * Int.random(in: 1...3, using: &random), size - start))"
      switch form.zeroes {
      case .none: break
      case .plain: commands.append("write -q -z \(whole)")
      case .unmapped: commands.append("write -q -z -u \(whole)")
      case .discarded: commands.append("discard -q \(whole)")
      }
    }
    let words = commands.map { "-c '\($0)'" }.joined(separator: " ")
    return "qemu-io \(words) \(opened(name))"
  }

  /// A qemu-io call that compresses some clusters, each of which is empty: QEMU overwrites none so.
  private func compressedWork(_ random: inout SeededGenerator) -> String {
    let cluster = 1 << form.clusterBits
    guard form.compression != .none, size >= cluster else { return "" }
    let places = Array((0..<size / cluster).shuffled(using: &random).prefix(6))
    let words = places.map { "-c 'write -q -c -P \($0 % 255 + 1) \($0 * cluster) \(cluster)'" }
    return "qemu-io \(words.joined(separator: " ")) \(opened("top"))"
  }

  private func pick(_ values: [String], _ random: inout SeededGenerator) -> String {
    values[Int.random(in: 0..<values.count, using: &random)]
  }
}
