//! What runs on a node: containerd, the kubelet, kube-proxy, and their configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::daemon::Daemon;
use super::layout::{self, Node};
use super::{cgroup, control, pki, sandbox};
use crate::images;
use crate::kube::Tools;
use crate::repo::Repo;
use crate::step;

/// The node's own `/etc/kubernetes`: what its processes read.
const CONFIG: &str = "/etc/kubernetes";
/// containerd answers within half a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// The components of a node, in the order in which they are started.
pub fn daemons(repo: &Repo, tools: &Tools, node: Node) -> [Daemon; 3] {
    let config = |file: &str| format!("{CONFIG}/{file}");
    [
        Daemon::new(repo, PathBuf::from("/usr/bin/containerd"), Some(node))
            .flags([("config", config("containerd.toml")), ("log-level", "warn".into())]),
        Daemon::new(repo, tools.bin("kubelet"), Some(node)).flags([
            ("config", config("kubelet.json")),
            ("kubeconfig", config("kubelet.kubeconfig")),
            ("hostname-override", node.name()),
            ("node-ip", node.address()),
        ]),
        Daemon::new(repo, tools.bin("kube-proxy"), Some(node)).flags([("config", config("kube-proxy.json"))]),
    ]
}

/// Makes the node and starts its containerd, which images are given to before anything is scheduled.
pub fn ensure_runtime(repo: &Repo, tools: &Tools, node: Node) -> Result<()> {
    sandbox::ensure(node)?;
    cgroup::ensure(&node.system_cgroup())?;
    configure(node)?;
    let [containerd, ..] = daemons(repo, tools, node);
    containerd.ensure()?;
    step::wait(&format!("containerd of {}", node.name()), PATIENCE, || {
        containerd.until(|| {
            std::os::unix::net::UnixStream::connect(node.containerd())
                .map(drop)
                .map_err(|error| format!("{}: {error}", node.containerd().display()))
        })
    })
}

/// Starts its kubelet and kube-proxy, once the API server is there.
pub fn ensure_kubelet(repo: &Repo, tools: &Tools, node: Node) -> Result<()> {
    let [_, kubelet, proxy] = daemons(repo, tools, node);
    kubelet.ensure()?;
    proxy.ensure()?;
    Ok(())
}

/// Writes everything that its processes read. The CNI configuration is written once: others, the mesh among them, add to it.
fn configure(node: Node) -> Result<()> {
    let folder = node.own_folder(CONFIG);
    let keys = folder.join("pki");
    for below in [&keys, &folder.join("manifests")] {
        fs::create_dir_all(below).with_context(|| format!("cannot make {}", below.display()))?;
    }
    let server = pki::kubelet_server(node);
    let client = pki::kubelet_client(node);
    let proxy = "kube-proxy";
    copy("ca.crt", &keys)?;
    for user in [client.as_str(), server.as_str(), proxy] {
        copy(&format!("{user}.crt"), &keys)?;
        copy(&format!("{user}.key"), &keys)?;
    }
    let seen = Path::new(CONFIG).join("pki");
    control::write_kubeconfig(&folder.join("kubelet.kubeconfig"), &seen, &client)?;
    control::write_kubeconfig(&folder.join("kube-proxy.kubeconfig"), &seen, proxy)?;

    let pause = images::reference(images::PAUSE).context("there is no image of a sandbox")?;
    write(&folder.join("containerd.toml"), &containerd(&pause))?;
    write(&folder.join("kubelet.json"), &pretty(&kubelet(node, &seen.display().to_string()))?)?;
    write(&folder.join("kube-proxy.json"), &pretty(&kube_proxy(node))?)?;
    // Nobody answers there: a name outside of the cluster fails at once, instead of after time-outs.
    write(&folder.join("resolv.conf"), &format!("nameserver {}\n", layout::CONTROL))?;
    let cni = node.own_folder("/etc/cni/net.d").join("10-cluster.conflist");
    if cni.exists() { Ok(()) } else { write(&cni, &pretty(&network(node))?) }
}

fn containerd(pause: &str) -> String {
    include_str!("../../kube/containerd.toml").replace("@PAUSE@", pause)
}

fn kubelet(node: Node, keys: &str) -> Value {
    let server = pki::kubelet_server(node);
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": format!("{keys}/{}.crt", pki::AUTHORITY) },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": format!("{keys}/{server}.crt"),
        "tlsPrivateKeyFile": format!("{keys}/{server}.key"),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "staticPodPath": format!("{CONFIG}/manifests"),
        "resolvConf": format!("{CONFIG}/resolv.conf"),
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "clusterDNS": [layout::DNS],
        "clusterDomain": layout::DOMAIN,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": true,
        "cgroupRoot": format!("/{}", node.cgroup()),
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        // Both nodes see the disk and the memory of the whole machine: they must not evict because of each other.
        "evictionHard": { "memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
        // No registry gives back what is collected.
        "imageGCHighThresholdPercent": 100,
        // Lowering it needs a right that a container of CI does not have.
        "oomScoreAdj": 0,
    })
}

fn kube_proxy(node: Node) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": format!("{CONFIG}/kube-proxy.kubeconfig") },
        "hostnameOverride": node.name(),
        "mode": "iptables",
        "clusterCIDR": layout::PODS,
        "oomScoreAdj": 0,
        // The limits of conntrack belong to the machine, not to a namespace.
        "conntrack": {
            "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
        },
    })
}

/// The network of pods: a link each, routed, as cloud providers do it.
fn network(node: Node) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "cluster",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{ "subnet": node.pods() }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

fn copy(file: &str, to: &Path) -> Result<()> {
    let from = layout::pki().join(file);
    fs::copy(&from, to.join(file)).map(drop).with_context(|| format!("cannot copy {}", from.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn pretty(document: &Value) -> Result<String> {
    serde_json::to_string_pretty(document).context("a configuration cannot be written")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::layout::NODES;

    #[test]
    fn each_node_has_a_cgroup_and_addresses_of_its_own() {
        let [one, two] = NODES;
        assert_eq!(kubelet(one, "/pki")["cgroupRoot"], "/tl-node-1");
        assert_ne!(kubelet(one, "/pki")["cgroupRoot"], kubelet(two, "/pki")["cgroupRoot"]);
        let subnet = "/plugins/0/ipam/ranges/0/0/subnet";
        assert_eq!(network(one).pointer(subnet).unwrap(), "10.245.1.0/24");
        assert_eq!(network(two).pointer(subnet).unwrap(), "10.245.2.0/24");
    }

    #[test]
    fn the_runtime_knows_its_sandbox() {
        let text = containerd("docker.io/tulle/pause:1");
        assert!(text.contains("sandbox_image = \"docker.io/tulle/pause:1\""));
        assert!(!text.contains('@'));
    }
}
