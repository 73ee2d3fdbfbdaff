//! A virtual node: its namespaces, the folders it has for itself, its link to the bridge.
//!
//! A node sees its own `/etc/cni/net.d`, `/var/lib/kubelet`, `/run/tulle` and so on at the default paths, so that what is installed
//! on it needs no path of its own. It shares the kernel, the process ids, `/sys/fs/bpf` and the cgroups with the other node.
//!
//! The namespaces are held by files, not by processes: whatever is killed, they stay until `down`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::layout::{self, BRIDGE, CONTROL, NODES, Node, OWN_FOLDERS, PREFIX, SERVICES};
use crate::step;

const LINKS: &str = "/sys/class/net";
const BPF: &str = "/sys/fs/bpf";
/// Where Debian puts the plugins of CNI.
const PLUGINS: &str = "/usr/lib/cni";

/// What all nodes share: the bridge, the file system of eBPF, the folder that holds their namespaces.
pub fn ensure_shared() -> Result<()> {
    if !is_mounted(Path::new(BPF))? {
        run(Command::new("mount").args(["-t", "bpf", "bpf", BPF]))?;
    }
    // So that a pod which mounts it sees the very same one.
    run(Command::new("mount").args(["--make-rshared", BPF]))?;
    let folder = layout::namespaces();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    if !is_mounted(&folder)? {
        run(Command::new("mount").arg("--bind").arg(&folder).arg(&folder))?;
        // A mount namespace can only be held by a file on a mount that is shared with nobody.
        run(Command::new("mount").arg("--make-private").arg(&folder))?;
    }
    if !Path::new(LINKS).join(BRIDGE).exists() {
        run(Command::new("ip").args(["link", "add", BRIDGE, "type", "bridge"]))?;
    }
    run(Command::new("ip").args(["address", "replace", &format!("{CONTROL}/{PREFIX}"), "dev", BRIDGE]))?;
    run(Command::new("ip").args(["link", "set", BRIDGE, "up"]))
}

/// The node itself: complete, or made anew.
pub fn ensure(node: Node) -> Result<()> {
    let complete = node.complete().exists()
        && is_mounted(&node.network_namespace())?
        && is_mounted(&node.mount_namespace())?;
    if !complete {
        remove(node)?;
        make(node)?;
        File::create(node.complete()).context("cannot note that a node is complete")?;
    }
    connect(node)
}

fn make(node: Node) -> Result<()> {
    for folder in OWN_FOLDERS {
        let own = node.own_folder(folder);
        for path in [own.as_path(), Path::new(folder)] {
            fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        }
    }
    copy_plugins(&node.own_folder("/opt/cni/bin"))?;
    for file in [node.network_namespace(), node.mount_namespace()] {
        File::create(&file).with_context(|| format!("cannot make {}", file.display()))?;
    }
    let mut unshare = Command::new("unshare");
    unshare.arg(flag("--net=", &node.network_namespace())).arg(flag("--mount=", &node.mount_namespace()));
    run(unshare.args(["--propagation", "private", "true"]))?;
    for folder in OWN_FOLDERS {
        run(inside(node, "mount").arg("--bind").arg(node.own_folder(folder)).arg(folder))?;
    }
    // Mounts of a pod that asks for it reach the node, and the other way round; nothing reaches the machine.
    run(inside(node, "mount").args(["--make-rshared", "/"]))
}

/// Debian's plugins, at the path where everybody else has them; the mesh adds its own there.
fn copy_plugins(to: &Path) -> Result<()> {
    for entry in fs::read_dir(PLUGINS).with_context(|| format!("cannot list {PLUGINS}"))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        fs::copy(entry.path(), &target).with_context(|| format!("cannot write {}", target.display()))?;
    }
    Ok(())
}

/// Its link, addresses and routes. Everything may be there already.
fn connect(node: Node) -> Result<()> {
    let link = node.link();
    if !Path::new(LINKS).join(&link).exists() {
        let mut add = Command::new("ip");
        add.args(["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns"]);
        run(add.arg(node.network_namespace()))?;
    }
    run(Command::new("ip").args(["link", "set", &link, "master", BRIDGE, "up"]))?;
    let ip = |arguments: &[&str]| run(inside(node, "ip").args(arguments));
    ip(&["link", "set", "lo", "up"])?;
    ip(&["address", "replace", &format!("{}/{PREFIX}", node.address()), "dev", "eth0"])?;
    ip(&["link", "set", "eth0", "up"])?;
    ip(&["route", "replace", "default", "via", CONTROL])?;
    for other in NODES.iter().filter(|other| **other != node) {
        ip(&["route", "replace", &other.pods(), "via", &other.address()])?;
    }
    run(inside(node, "sh").args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]))?;
    // The machine reaches pods, and Services by way of the first node: tests and `helm test` run there.
    let route =
        |to: &str, by: Node| run(Command::new("ip").args(["route", "replace", to, "via", &by.address()]));
    route(&node.pods(), node)?;
    if node == NODES[0] { route(SERVICES, node) } else { Ok(()) }
}

/// Removes its namespaces, and with them its link, its mounts and its packet filters. Its processes must be gone.
pub fn remove(node: Node) -> Result<bool> {
    let mut found = false;
    let complete = node.complete();
    if complete.exists() {
        fs::remove_file(&complete).with_context(|| format!("cannot remove {}", complete.display()))?;
    }
    if Path::new(LINKS).join(node.link()).exists() {
        run(Command::new("ip").args(["link", "delete", &node.link()]))?;
        found = true;
    }
    for file in [node.mount_namespace(), node.network_namespace()] {
        while is_mounted(&file)? {
            run(Command::new("umount").arg(&file))?;
            found = true;
        }
        if file.exists() {
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
    }
    Ok(found)
}

/// Removes what the nodes share. The file system of eBPF stays: others use it.
pub fn remove_shared() -> Result<()> {
    if Path::new(LINKS).join(BRIDGE).exists() {
        run(Command::new("ip").args(["link", "delete", BRIDGE]))?;
    }
    let folder = layout::namespaces();
    while is_mounted(&folder)? {
        run(Command::new("umount").arg(&folder))?;
    }
    Ok(())
}

/// A command that runs in the namespaces of the node.
pub fn inside(node: Node, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(flag("--net=", &node.network_namespace())).arg(flag("--mount=", &node.mount_namespace()));
    command.arg("--").arg(program);
    command
}

fn flag(name: &str, path: &Path) -> OsString {
    let mut flag = OsString::from(name);
    flag.push(path);
    flag
}

fn is_mounted(path: &Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(4).map(PathBuf::from).as_deref() == Some(path)))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {}", step::line_of(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` ended with {}: {}", step::line_of(command), output.status, said.trim());
    }
    Ok(())
}
