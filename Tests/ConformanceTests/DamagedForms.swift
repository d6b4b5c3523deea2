import TestSupport

/// One kind of image that is damaged: how qemu-img makes it.
struct DamagedForm: Sendable {
  var name: String
  var script: String
  var hasSnapshots = false
  var isEncrypted = false

  static let megabytes = 2

  static let fill = """
    qemu-io -c 'write -q -P 1 256k 200k' -c 'write -q -P 2 1M 64k' -c 'write -q -z 512k 192k' \
      -c 'discard -q 256k 64k' -c 'write -q -P 3 256k 4k' -c 'write -q -P 5 0 5000' image >/dev/null

    """
  static let snapshots = """
    qemu-img snapshot -c one image
    qemu-io -c 'write -q -P 7 256k 100k' -c 'write -q -P 8 1900k 64k' image >/dev/null
    qemu-img snapshot -c two image
    qemu-io -c 'write -q -P 9 0 128k' image >/dev/null

    """
  static let text =
    "truncate -s 2M base; head -c 700k /dev/urandom | base64 -w 0 >text;"
    + "dd if=text of=base bs=64k seek=3 conv=notrunc status=none;"

  static func created(_ name: String, _ options: String, snapshots: Bool = false) -> DamagedForm {
    DamagedForm(
      name: name,
      script: "qemu-img create -q -f qcow2 -o \(options) image \(megabytes)M\n" + fill
        + (snapshots ? Self.snapshots : ""),
      hasSnapshots: snapshots)
  }

  static let plain = created("plain", "compat=1.1,cluster_size=4096", snapshots: true)
  static let preallocated = DamagedForm(
    name: "preallocated zeroes",
    script: """
      qemu-img create -q -f qcow2 -o cluster_size=4096,preallocation=metadata image 2M
      qemu-io -c 'write -q -P 1 0 1M' -c 'write -q -z 64k 256k' image >/dev/null

      """)
  static let compressed = DamagedForm(
    name: "compressed",
    script: text + "qemu-img convert -c -O qcow2 -o cluster_size=4096 base image\n" + snapshots,
    hasSnapshots: true)
  static let subclusters = created(
    "extended L2", "extended_l2=on,cluster_size=16k", snapshots: true)
  static let compressedSubclusters = DamagedForm(
    name: "compressed with extended L2",
    script: text + "qemu-img convert -c -O qcow2 -o extended_l2=on,cluster_size=16k base image\n")
  static let dataFile = created("data file", "data_file=image.data,cluster_size=4096")
  static let bitmaps = DamagedForm(
    name: "bitmaps",
    script: """
      qemu-img create -q -f qcow2 -o cluster_size=4096 image 2M
      qemu-img bitmap --add image b1; qemu-img bitmap --add -g 512 image b2

      """ + fill)
  /// How QEMU's tools name the image, with the secret if it needs one.
  var source: String {
    isEncrypted
      ? "--object secret,id=s,data=word --image-opts"
        + " driver=qcow2,encrypt.key-secret=s,file.filename=image"
      : "-f qcow2 image"
  }

  static let encrypted = DamagedForm(
    name: "encrypted",
    script: """
      secret="--object secret,id=s,data=word"
      again qemu-img create -q $secret -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s \\
        -o encrypt.iter-time=10,cluster_size=4096 image 2M
      qemu-io $secret --image-opts driver=qcow2,encrypt.key-secret=s,file.filename=image \\
        -c 'write -q -P 1 0 300k' -c 'write -q -z 64k 64k' >/dev/null

      """, isEncrypted: true)
  static let bits1 = created("1-bit refcounts", "cluster_size=512,refcount_bits=1")

  static let all = [
    created("version 2", "compat=0.10,cluster_size=4096", snapshots: true),
    created("large clusters", "cluster_size=64k", snapshots: true), plain, preallocated, bits1,
    created("2-bit refcounts", "cluster_size=2M,refcount_bits=2"),
    created("64-bit refcounts", "cluster_size=1024,refcount_bits=64", snapshots: true),
    created("8-bit refcounts", "cluster_size=512,refcount_bits=8", snapshots: true),
    compressed,
    DamagedForm(
      name: "zstd",
      script: text
        + "qemu-img convert -c -O qcow2 -o cluster_size=16k,compression_type=zstd base image\n"),
    created("lazy refcounts", "lazy_refcounts=on,cluster_size=4096"), bitmaps, subclusters,
    compressedSubclusters, dataFile, encrypted,
  ]
}
