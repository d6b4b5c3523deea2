// The tree of a mount. It is made once and never changes: devices are fixed, and so are their control
// files. An inode number is the place of a node in one array, so nothing is looked up by name but
// names, and nothing is counted or forgotten. Views of a chain come and go, and are no nodes: their
// numbers, far above these, say what they are (ViewInode).

internal import Chain
internal import Control
internal import Fuse

/// What a file or directory of the mount is.
enum NodeContent: Sendable {
  case directory([Int])
  /// The bytes of a disk.
  case device(DeviceNode)
  /// A text of the whole mount.
  case mountText(MountFile)
  /// A text of one device.
  case deviceText(DeviceFile, device: String)
  /// Commands to the whole mount, and a text about them.
  case mountCommand(MountVerb)
  /// Commands to one device, and a text about them.
  case command(ControlVerb, device: String)
  /// Blocks until the device's job ends.
  case wait(device: String)
  /// The views of a device's chain.
  case views(ViewDirectory)
  /// What happens to all jobs, as it happens.
  case events
  /// Lines of the human monitor, and what they print.
  case monitor
  /// A symbolic link with its text.
  case link(String)
}

extension NodeContent {
  var isDirectory: Bool {
    switch self {
    case .directory, .views: true
    case .device, .mountText, .deviceText, .mountCommand, .command, .wait, .events, .monitor, .link:
      false
    }
  }

  /// It tells something, and takes no commands.
  var isTextOnly: Bool {
    switch self {
    case .mountText, .deviceText, .wait, .events: true
    case .directory, .device, .mountCommand, .command, .views, .monitor, .link: false
    }
  }
}

/// One file or directory.
struct Node: Sendable {
  var name: String
  var parent: Int
  var content: NodeContent
}

/// All files and directories of a mount.
struct InodeTree: Sendable {
  private(set) var nodes: [Node] = []
  /// The views of each device, in the devices' order; of as many as can be numbered.
  let views: [ViewDirectory]

  /// Lays out the tree for devices in their order, with a link to the socket if there is one.
  init(devices: [DeviceNode], socketPath: String?) {
    views = devices.prefix(ViewInode.deviceLimit).enumerated().map { number, device in
      ViewDirectory(of: device, number: number)
    }
    nodes.append(Node(name: "", parent: 0, content: .directory([])))
    for device in devices { add(device.disk.name, to: 0, .device(device)) }
    let jobs = add(".jobs", to: 0, .directory([]))
    for file in MountFile.allCases { add(file.rawValue, to: jobs, .mountText(file)) }
    for verb in MountVerb.allCases { add(verb.rawValue, to: jobs, .mountCommand(verb)) }
    add("events", to: jobs, .events)
    add("monitor", to: jobs, .monitor)
    if let socketPath { add("qmp", to: jobs, .link(socketPath)) }
    for device in devices {
      let name = device.disk.name
      let directory = add(name, to: jobs, .directory([]))
      for verb in ControlVerb.allCases {
        add(verb.rawValue, to: directory, .command(verb, device: name))
      }
      let verbs = Set(ControlVerb.allCases.map(\.rawValue))
      for file in DeviceFile.allCases where !verbs.contains(file.rawValue) {
        add(file.rawValue, to: directory, .deviceText(file, device: name))
      }
      add("wait", to: directory, .wait(device: name))
    }
    let chains = add(".chain", to: 0, .directory([]))
    for directory in views { add(directory.device.disk.name, to: chains, .views(directory)) }
  }

  @discardableResult
  private mutating func add(_ name: String, to parent: Int, _ content: NodeContent) -> Int {
    let index = nodes.count
    nodes.append(Node(name: name, parent: parent, content: content))
    if case .directory(let children) = nodes[parent].content {
      nodes[parent].content = .directory(children + [index])
    }
    return index
  }

  /// The node that the kernel means, nil if there is none.
  func node(_ inode: InodeNumber) -> Node? {
    guard inode.rawValue >= 1, inode.rawValue <= UInt64(nodes.count) else { return nil }
    return nodes[Int(inode.rawValue) - 1]
  }

  /// The number of a device's file: those are the first behind the root, in the devices' order.
  static func inode(ofDevice number: Int) -> InodeNumber { inode(1 + number) }

  /// The number of a node.
  static func inode(_ index: Int) -> InodeNumber { InodeNumber(UInt64(index) + 1) }

  /// The child of a directory by name.
  func child(_ name: String, of node: Node) -> Int? {
    guard case .directory(let children) = node.content else { return nil }
    return children.first { nodes[$0].name == name }
  }
}
