import TestSupport

// One image of the matrix: a value for each property that an image of QEMU's can have. A draw of values
// may ask for what cannot be; `settled` gives up the later property of such a pair, by QEMU's rules.

/// What an image of the matrix is like.
struct MatrixForm: Sendable, Hashable, CustomStringConvertible {
  enum Compression: String, CaseIterable { case none, zlib, zstd }
  enum DataFile: String, CaseIterable { case none, plain, raw }
  enum Preallocation: String, CaseIterable { case off, metadata, falloc, full }
  enum Zeroes: String, CaseIterable { case none, plain, unmapped, discarded }
  enum Below: String, CaseIterable { case nothing, shorter, equal, larger }
  enum Naming: String, CaseIterable { case relative, absolute, json, raw, window, nested }

  var version = 3
  var clusterBits = 16
  var refcountBits = 16
  var hasExtendedL2 = false
  var hasLazyRefcounts = false
  var compression = Compression.none
  var dataFile = DataFile.none
  var preallocation = Preallocation.off
  var zeroes = Zeroes.none
  var below = Below.nothing
  var naming = Naming.relative
  /// Layers below the image.
  var depth = 0
  var isEncrypted = false
  var snapshots = 0

  /// Draws a value for each property, and settles what does not go together.
  static func drawn(from random: inout SeededGenerator) -> MatrixForm {
    func pick<Value>(_ values: [Value]) -> Value {
      values[Int.random(in: 0..<values.count, using: &random)]
    }
    var form = MatrixForm()
    form.version = pick([2, 3, 3])
    form.clusterBits = pick([9, 10, 12, 14, 16, 16, 18, 21])
    form.refcountBits = pick([1, 2, 4, 8, 16, 32, 64])
    form.hasExtendedL2 = pick([true, false])
    form.hasLazyRefcounts = pick([true, false, false])
    form.compression = pick(Compression.allCases)
    form.dataFile = pick([.none, .none, .plain, .raw])
    form.preallocation = pick([.off, .off] + Preallocation.allCases)
    form.zeroes = pick(Zeroes.allCases)
    form.below = pick([.nothing, .shorter, .equal, .larger])
    form.naming = pick(Naming.allCases)
    form.depth = pick([1, 1, 2, 3])
    form.isEncrypted = random.oneIn(12)
    form.snapshots = pick([0, 0, 0, 0, 0, 1, 2])
    return form.settled()
  }

  /// The form without what QEMU would refuse, or what says nothing here.
  private func settled() -> MatrixForm {
    var form = self
    if form.version == 2 {
      form.refcountBits = 16
      form.hasExtendedL2 = false
      form.hasLazyRefcounts = false
      form.dataFile = .none
      if form.compression == .zstd { form.compression = .zlib }
    }
    if form.isEncrypted { form.dataFile = .none }
    if form.dataFile != .none || form.isEncrypted { form.compression = .none }
    if form.dataFile == .raw { form.below = .nothing }
    if form.dataFile != .none { form.snapshots = 0 }
    if form.hasExtendedL2 { form.clusterBits = max(form.clusterBits, 14) }
    // A refcount of one bit cannot count a snapshot.
    if form.snapshots > 0 { form.refcountBits = max(form.refcountBits, 2) }
    // Several compressed streams share a host cluster, and each snapshot counts them all again.
    if form.snapshots > 0, form.compression != .none {
      form.refcountBits = max(form.refcountBits, 16)
    }
    if form.below == .nothing {
      form.naming = .relative
      form.depth = 0
    } else if form.depth == 0 {
      form.depth = 1
    }
    // What has a cluster already is not compressed.
    if form.compression != .none { form.preallocation = .off }
    if form.below != .nothing, !form.hasExtendedL2 { form.preallocation = .off }
    return form
  }

  /// The values, each as `property=value`.
  var values: [String] {
    [
      "version=\(version)", "cluster=\(1 << clusterBits)", "refcount=\(refcountBits)",
      "extended=\(hasExtendedL2)", "lazy=\(hasLazyRefcounts)", "compression=\(compression)",
      "data-file=\(dataFile)", "preallocation=\(preallocation)", "zeroes=\(zeroes)",
      "below=\(below)", "naming=\(naming)", "depth=\(depth)", "encrypted=\(isEncrypted)",
      "snapshots=\(snapshots)",
    ]
  }

  var description: String { values.joined(separator: " ") }
}

extension MatrixForm {
  /// A list of forms, the same for the same seed: each next one is the one of some draws that brings
  /// most pairs of values which were not together in a form before.
  static func list(count: Int, seed: UInt64) -> [MatrixForm] {
    var random = SeededGenerator(seed: seed)
    var pairs: Set<String> = []
    var forms: [MatrixForm] = []
    while forms.count < count {
      var best: (form: MatrixForm, new: Set<String>)?
      for _ in 0..<20 {
        let form = drawn(from: &random)
        let new = form.pairs.subtracting(pairs)
        if best == nil || new.count > best!.new.count { best = (form, new) }
      }
      guard let best else { continue }
      pairs.formUnion(best.new)
      forms.append(best.form)
    }
    return forms
  }

  private var pairs: Set<String> {
    let values = values
    return Set(
      values.indices.flatMap { one in
        values[(one + 1)...].map { "\(values[one]) \($0)" }
      })
  }
}
