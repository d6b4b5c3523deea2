import TestSupport
import Testing

extension MountTests {
  @Suite("Creating images", .serialized, .timeLimit(.minutes(3)))
  struct CreateTests {
    /// What `qemu-img info` says of an image, without its name and what it takes on the host.
    static let look = """
      look() {
        qemu-img info --output=json $1 | grep -v -e actual-size -e '"filename"'
      }
      """

    @Test(
      "an image has what QEMU's image with the same options has, and is clean",
      arguments: [
        "", "compat=0.10", "compat=v3,refcount_bits=1,cluster_size=2M", "lazy_refcounts=on",
        "lazy_refcounts", "extended_l2=on", "extended_l2=on,cluster_size=16k",
        "compression_type=zstd", "preallocation=metadata", "preallocation=falloc",
        "preallocation=full,cluster_size=512", "preallocation=metadata,extended_l2=on",
        "preallocation=metadata,compat=0.10,cluster_size=4k", "refcount_bits=64,size=5000k",
      ])
    func likeQemu(options: String) throws {
      let box = try Sandbox()
      let size = options.contains("size=5000k") ? "" : "5M"
      try box.run(
        """
        \(Self.look)
        chainfs create -o '\(options)' ours.qcow2 \(size)
        qemu-img create -q -f qcow2 -o '\(options.isEmpty ? "size=5M" : options)' theirs.qcow2 \
          \(options.isEmpty ? "" : size)
        diff <(look ours.qcow2) <(look theirs.qcow2)
        qemu-img check -q ours.qcow2
        truncate -s $(stat -c %s theirs.qcow2) zero; truncate -s 5M zero
        case '\(options)' in *size=5000k*) truncate -s 5000k zero;; esac
        qemu-img compare -q -f qcow2 -F raw ours.qcow2 zero
        qemu-io -f qcow2 -c 'write -q -P 5 1M 100k' -c 'read -q -P 5 1M 100k' \
          -c 'read -q -P 0 0 1M' ours.qcow2
        qemu-img check -q ours.qcow2
        """)
      let keys = [
        "compat", "compression-type", "lazy-refcounts", "refcount-bits", "corrupt", "extended-l2",
        "virtual-size", "cluster-size", "dirty-flag",
      ]
      for key in keys {
        let pick = "grep -o '\"\(key)\": [^,}]*' | tr -d ' ' || true"
        #expect(
          try box.run("chainfs info --json ours.qcow2 | \(pick)")
            == box.run("qemu-img info --output=json ours.qcow2 | \(pick)"), "\(key)")
      }
    }

    @Test("an overlay takes qemu-img's words too, over qcow2, raw and a window of a file")
    func overlays() throws {
      let box = try Sandbox()
      try box.run(
        #"""
        qemu-img create -q -f qcow2 base.qcow2 4M
        qemu-io -f qcow2 -c 'write -q -P 7 0 4M' base.qcow2
        head -c 300000 /dev/urandom > file
        chainfs create -o backing_file=base.qcow2,backing_fmt=qcow2,extended_l2=on a.qcow2
        chainfs create -o preallocation=metadata,extended_l2=on -b base.qcow2 b.qcow2
        chainfs create -b file -F raw c.qcow2
        chainfs create -F raw           -b 'json:{"driver":"raw","offset":512,"size":65536,"file":{"driver":"file","filename":"file"}}'           d.qcow2
        for image in a b c d; do qemu-img check -q $image.qcow2; done
        for image in a b; do qemu-img compare -q $image.qcow2 base.qcow2; done
        qemu-img compare -q -f qcow2 -F raw c.qcow2 file
        dd if=file of=part bs=512 skip=1 count=128 2>/dev/null
        qemu-img compare -q -f qcow2 -F raw d.qcow2 part
        """#)
    }

    static let refused = [
      ("-o foo=bar", "there is no option 'foo'"), ("-o foo=bar", "extended_l2"),
      ("-o cluster_size=3k", "cluster_size"), ("-o cluster_size=4M", "cluster_size"),
      ("-o cluster_size=256", "cluster_size"), ("-o cluster_size=x", "cluster_size=x"),
      ("-o cluster_size=4k --cluster-size 4k", "twice"), ("-o refcount_bits=3", "refcount_bits"),
      ("-o refcount_bits=128", "refcount_bits"), ("-o compat=0.9", "compat"),
      ("-o compat=0.10,lazy_refcounts=on", "version 3"),
      ("-o compat=0.10,extended_l2=on", "version 3"),
      ("-o compat=0.10,compression_type=zstd", "version 3"),
      ("-o compat=0.10,refcount_bits=8", "version 3"),
      ("-o extended_l2=on,cluster_size=8k", "16K"), ("-o extended_l2=maybe", "on, off"),
      ("-o preallocation=some", "metadata"), ("-o compression_type=lz4", "zlib, zstd"),
      ("-o preallocation=metadata -b base.qcow2", "extended_l2"), ("-o size=3M", "twice"),
      ("-F vmdk -b base.qcow2", "vmdk"),
    ]

    @Test("what QEMU refuses is refused, with the reason, and leaves no file", arguments: refused)
    func refusals(options: String, reason: String) throws {
      let box = try Sandbox()
      try box.run("qemu-img create -q -f qcow2 base.qcow2 1M")
      let outcome = try box.tryRun("chainfs create \(options) new.qcow2 1M")
      #expect(
        outcome.status == 64 && outcome.errorOutput.contains(reason), "\(outcome.errorOutput)")
      #expect(try box.run("ls new.qcow2 2>/dev/null || true") == "")
    }

    @Test("an overlay of another program's image is refused with the command that helps")
    func foreign() throws {
      let box = try Sandbox()
      try box.run("qemu-img create -q -f vmdk base.vmdk 1M")
      for command in [
        "create -b base.vmdk new.qcow2", "info base.vmdk",
        "mount vda=base.vmdk mnt",
      ] {
        let outcome = try box.tryRun("chainfs \(command)")
        #expect(outcome.status == 1)
        #expect(
          outcome.errorOutput.contains("qemu-img convert -f vmdk -O qcow2"),
          "\(command): \(outcome.errorOutput)")
      }
    }
  }
}
