#pragma once
#include <zlib.h>

// inflateInit2 is a macro that passes the header's version and the struct's size.
static inline int chainfs_inflate_init_raw(z_stream *stream, int window_bits) {
  return inflateInit2(stream, -window_bits);
}
