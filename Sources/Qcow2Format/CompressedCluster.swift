internal import CZlib
internal import CZstd

/// Compressed clusters back to what they were.
///
/// The end of a stream is not written anywhere: it stops when a cluster is full. What follows in
/// the input is somebody else's, so neither trailing bytes nor a stream without its end mark are
/// wrong, as long as the cluster is full. Work is bounded by the two buffers.
package enum CompressedCluster {
  /// Fills `output`, one cluster, from the stream at the start of `input`.
  ///
  /// On an error the content of `output` means nothing.
  package static func inflate(
    _ input: RawSpan, method: CompressionMethod, into output: inout MutableRawSpan
  ) throws(FormatError) {
    switch method {
    case .deflate: try inflateDeflate(input, into: &output)
    case .zstd: try inflateZstd(input, into: &output)
    }
  }

  private static func inflateDeflate(
    _ input: RawSpan, into output: inout MutableRawSpan
  ) throws(FormatError) {
    guard let inputCount = UInt32(exactly: input.byteCount),
      let outputCount = UInt32(exactly: output.byteCount)
    else { throw .corruptCompressedCluster(method: .deflate, reason: "it is too long") }
    // A zeroed stream is how zlib wants it before inflateInit: its allocators, no input yet.
    var stream = unsafe z_stream()
    // QEMU compresses with a window of 2^12; a decoder with the largest window takes any.
    guard unsafe chainfs_inflate_init_raw(&stream, MAX_WBITS) == Z_OK else {
      throw .corruptCompressedCluster(method: .deflate, reason: "zlib has no memory")
    }
    // The stream was initialised above and is ended once.
    defer { _ = unsafe inflateEnd(&stream) }
    // Alive: the pointers are used by zlib inside of the two closures only. In bounds: the counts
    // are those of the buffers. zlib never writes through next_in, it only lacks the const.
    let status = unsafe input.withUnsafeBytes { source in
      unsafe output.withUnsafeMutableBytes { target in
        unsafe stream.next_in = UnsafeMutablePointer(
          mutating: source.assumingMemoryBound(to: UInt8.self).baseAddress)
        unsafe stream.avail_in = inputCount
        unsafe stream.next_out = unsafe target.assumingMemoryBound(to: UInt8.self).baseAddress
        unsafe stream.avail_out = outputCount
        return unsafe CZlib.inflate(&stream, Z_FINISH)
      }
    }
    // Z_BUF_ERROR: the cluster is full before the stream has ended, or the stream is cut.
    guard status == Z_STREAM_END || status == Z_BUF_ERROR else {
      throw .corruptCompressedCluster(method: .deflate, reason: "zlib status \(status)")
    }
    // A plain field of a struct that is still alive.
    let missing = unsafe stream.avail_out
    guard missing == 0 else {
      throw .corruptCompressedCluster(method: .deflate, reason: "\(missing) bytes are missing")
    }
  }

  private static func inflateZstd(
    _ input: RawSpan, into output: inout MutableRawSpan
  ) throws(FormatError) {
    // Owned here: freed in the defer below, not kept anywhere else.
    guard let context = unsafe ZSTD_createDCtx() else {
      throw .corruptCompressedCluster(method: .zstd, reason: "zstd has no memory")
    }
    // The context was made above and is freed once.
    defer { _ = unsafe ZSTD_freeDCtx(context) }
    // Alive: the pointers are used by zstd inside of the two closures only. In bounds: sizes are
    // those of the buffers, and zstd moves the positions up to them.
    let failure: String? = unsafe input.withUnsafeBytes { source in
      unsafe output.withUnsafeMutableBytes { target in
        var from = unsafe ZSTD_inBuffer(src: source.baseAddress, size: source.count, pos: 0)
        var to = unsafe ZSTD_outBuffer(dst: target.baseAddress, size: target.count, pos: 0)
        var status = 0
        while unsafe to.pos < to.size {
          let before = unsafe (from.pos, to.pos)
          status = unsafe ZSTD_decompressStream(context, &to, &from)
          // The name of an error is a constant string of the library.
          if ZSTD_isError(status) != 0 { return unsafe String(cString: ZSTD_getErrorName(status)) }
          // Several frames may follow each other; one that stands still is cut.
          if unsafe before == (from.pos, to.pos) {
            return unsafe "\(to.size - to.pos) bytes are missing"
          }
        }
        // More is to come than fits the cluster: it is not the cluster that was compressed.
        return status == 0 ? nil : "it is longer than a cluster"
      }
    }
    if let failure { throw .corruptCompressedCluster(method: .zstd, reason: failure) }
  }
}
