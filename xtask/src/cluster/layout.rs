//! Names, addresses and paths of the test cluster. Everything that `up` makes and `down` removes is named here.
//!
//! | what | where |
//! |---|---|
//! | certificates, pid files, namespaces, the administrator's kubeconfig | [`RUN`] |
//! | data of etcd and of the nodes | [`DATA`] |
//! | logs | `target/cluster-logs` |
//! | links of the host | `tlc0` (bridge), `tlc1`, `tlc2` |
//! | cgroups, in every hierarchy | `/tl-control`, `/tl-node-1`, `/tl-node-2` |
//! | pins of the mesh's node agents | `/sys/fs/bpf/tulle/tl-node-*` |

use std::path::{Path, PathBuf};

/// What the running cluster needs, gone after a reboot.
pub const RUN: &str = "/run/tulle/cluster";
/// What fills disks. Not below `/var/lib/tulle`, which is the mesh's own on each node.
pub const DATA: &str = "/var/lib/tulle-cluster";
/// Held by whoever changes the cluster. Not in [`RUN`], which `down` removes.
pub const LOCK: &str = "/run/tulle/cluster.lock";
/// The bridge between the control plane, which lives in the host's network namespace, and the nodes.
pub const BRIDGE: &str = "tlc0";
/// The control plane's address on the bridge.
pub const CONTROL: &str = "172.31.0.1";
/// The length of the prefix of the bridge's network.
pub const PREFIX: u8 = 24;
/// Addresses of pods, of all nodes.
pub const PODS: &str = "10.245.0.0/16";
/// Addresses of Services.
pub const SERVICES: &str = "10.97.0.0/16";
/// The first address of [`SERVICES`], which Kubernetes gives to itself.
pub const KUBERNETES_SERVICE: &str = "10.97.0.1";
/// The Service of the cluster's name server.
pub const DNS: &str = "10.97.0.10";
/// The domain of the cluster.
pub const DOMAIN: &str = "cluster.local";
/// Port of the API server on [`CONTROL`].
pub const API_PORT: u16 = 6443;
/// The cgroup of the control plane, below the root of each hierarchy.
pub const CONTROL_CGROUP: &str = "tl-control";

/// The nodes of the cluster.
pub const NODES: [Node; 2] = [Node { number: 1 }, Node { number: 2 }];

/// Folders that each node has for itself, by the very paths that Kubernetes, containerd and the chart use by default.
pub const OWN_FOLDERS: &[&str] = &[
    "/etc/cni/net.d",
    "/etc/kubernetes",
    "/opt/cni/bin",
    "/run/containerd",
    "/run/netns",
    "/run/tulle",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/lib/tulle",
    "/var/log/containers",
    "/var/log/pods",
];

/// A node: a network namespace and a mount namespace of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    number: u8,
}

impl Node {
    /// Its name in Kubernetes, which is also its cgroup.
    pub fn name(self) -> String {
        format!("tl-node-{}", self.number)
    }

    /// Its address on the bridge.
    pub fn address(self) -> String {
        format!("172.31.0.{}", 10 + self.number)
    }

    /// The addresses of its pods.
    pub fn pods(self) -> String {
        format!("10.245.{}.0/24", self.number)
    }

    /// The host's end of its link.
    pub fn link(self) -> String {
        format!("tlc{}", self.number)
    }

    /// Where its network namespace is held.
    pub fn network_namespace(self) -> PathBuf {
        namespaces().join(format!("{}.net", self.name()))
    }

    /// Where its mount namespace is held.
    pub fn mount_namespace(self) -> PathBuf {
        namespaces().join(format!("{}.mnt", self.name()))
    }

    /// Written when its namespaces are complete: a node that was half made is made anew.
    pub fn complete(self) -> PathBuf {
        run(&format!("{}.complete", self.name()))
    }

    /// What stands at one of [`OWN_FOLDERS`] on this node, as the machine sees it.
    pub fn own_folder(self, folder: &str) -> PathBuf {
        data(&self.name()).join(folder.trim_start_matches('/').replace('/', "-"))
    }

    /// The socket of its containerd, as the machine sees it.
    pub fn containerd(self) -> PathBuf {
        self.own_folder("/run/containerd").join("containerd.sock")
    }

    /// Its cgroup, below the root of each hierarchy. The kubelet makes those of pods inside.
    pub fn cgroup(self) -> String {
        self.name()
    }

    /// The cgroup of its kubelet, containerd and kube-proxy.
    pub fn system_cgroup(self) -> String {
        format!("{}/system", self.cgroup())
    }
}

/// A path below [`RUN`].
pub fn run(below: &str) -> PathBuf {
    Path::new(RUN).join(below)
}

/// A path below [`DATA`].
pub fn data(below: &str) -> PathBuf {
    Path::new(DATA).join(below)
}

/// The folder, a mount of its own, whose files hold the nodes' namespaces.
pub fn namespaces() -> PathBuf {
    run("namespaces")
}

/// Certificates and keys.
pub fn pki() -> PathBuf {
    run("pki")
}

/// Which process is which component: "pid starttime" in a file each.
pub fn pids() -> PathBuf {
    run("pids")
}

/// The administrator's kubeconfig.
pub fn kubeconfig() -> PathBuf {
    run("kubeconfig")
}

/// Where clients find the API server.
pub fn api_url() -> String {
    format!("https://{CONTROL}:{API_PORT}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_share_no_name_address_or_path() {
        let [one, two] = NODES;
        let of = |node: Node| {
            let mut all = vec![node.name(), node.address(), node.pods(), node.link(), node.cgroup()];
            all.extend(OWN_FOLDERS.iter().map(|folder| node.own_folder(folder).display().to_string()));
            all
        };
        assert!(of(one).iter().all(|item| !of(two).contains(item)));
        assert_eq!(
            one.own_folder("/etc/cni/net.d"),
            Path::new("/var/lib/tulle-cluster/tl-node-1/etc-cni-net.d")
        );
    }

    #[test]
    fn names_of_links_are_short_enough_for_the_kernel() {
        assert!(NODES.iter().all(|node| node.link().len() < 16 && node.link() != BRIDGE));
    }
}
