import Glibc

/// Makes attributes for `posix_spawn` with which a program begins with every signal as usual, and other
/// flags as given; they have to be destroyed.
///
/// Threads of a test have all signals blocked. A program would inherit that, and a daemon that it leaves
/// would hear of no signal.
package func hearEverySignal(
  _ attributes: UnsafeMutablePointer<posix_spawnattr_t>, and flags: Int32 = 0
) {
  var none = sigset_t()
  var all = sigset_t()
  sigemptyset(&none)
  sigfillset(&all)
  posix_spawnattr_init(attributes)
  posix_spawnattr_setsigmask(attributes, &none)
  posix_spawnattr_setsigdefault(attributes, &all)
  posix_spawnattr_setflags(
    attributes, Int16(flags | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
}
