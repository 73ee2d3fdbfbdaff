//! A real two-node Kubernetes on this machine: `cargo xtask cluster up|down|load|status|enter`.
//!
//! Nothing is simulated: etcd, API server, controllers, scheduler, and on each node containerd, kubelet, kube-proxy and CNI plugins.
//! Only the machines are virtual: a node is a network namespace and a mount namespace ([`sandbox`]).
//!
//! Invariants: `up` brings whatever state there is to a running cluster, and touches nothing that already is as it should be; `down`
//! removes everything, whatever was killed before; nothing outside of the names in [`layout`] is changed.

mod cgroup;
mod control;
mod daemon;
mod down;
mod kubectl;
mod layout;
mod pki;
mod runtime;
mod sandbox;
mod status;
mod worker;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::apt::{self, Need};
use crate::kube::{self, Tools};
use crate::repo::Repo;
use crate::step::{self, Wait};
use crate::{images, product};
use layout::{NODES, Node};
use serde_json::Value;

pub use down::{is_there, remove, runs};
pub use kubectl::Kubectl;
pub use layout::kubeconfig;
pub use runtime::load as load_archives;

/// `tl-<this>-*` are pins of the agents on the nodes: `clean` leaves them alone while the cluster runs.
pub const WORD: &str = "node";
/// From the start of the kubelet to Ready takes 7 s on two idle cores.
const PATIENCE: Duration = Duration::from_secs(90);

/// What to do with the cluster.
#[derive(clap::Subcommand)]
pub enum Verb {
    /// Build, start and wait for the cluster; repairs one that runs
    Up,
    /// End and remove it
    Down,
    /// Write the images of the product and import them on both nodes
    Load(LoadOptions),
    /// Nodes, components, versions
    Status(status::Options),
    /// Run a command in the namespaces of a node: `enter 1 -- ip route`
    Enter(EnterOptions),
}

impl Verb {
    /// Builds and loads the images.
    pub fn load() -> Self {
        Self::Load(LoadOptions { no_build: false })
    }
}

/// How much to load.
#[derive(clap::Args)]
pub struct LoadOptions {
    /// Take the archives that are in target/images
    #[arg(long)]
    no_build: bool,
}

/// Where to go.
#[derive(clap::Args)]
pub struct EnterOptions {
    /// The number of the node, or its name
    node: String,
    /// The command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

/// The verb `cluster`.
pub fn run(repo: &Repo, verb: &Verb) -> Result<()> {
    if let Verb::Status(options) = verb {
        return status::run(repo, options);
    }
    if !apt::is_root() {
        bail!("namespaces, mounts and cgroups of the cluster need root: run it with sudo");
    }
    match verb {
        Verb::Up => up(repo),
        Verb::Down => remove(),
        Verb::Load(options) => load(repo, options),
        Verb::Enter(options) => enter(options),
        Verb::Status(options) => status::run(repo, options),
    }
}

fn up(repo: &Repo) -> Result<()> {
    let began = Instant::now();
    ensure_packages()?;
    let tools = kube::ensure_cluster(repo)?;
    let _lock = lock()?;
    let kubectl = Kubectl::of(&tools);
    for folder in [layout::pids(), layout::data("etcd"), daemon::logs(repo)] {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    pki::ensure()?;
    cgroup::ensure(layout::CONTROL_CGROUP)?;
    sandbox::ensure_shared()?;
    control::ensure(repo, &tools, &kubectl)?;
    for node in NODES {
        worker::ensure_runtime(repo, &tools, node)?;
    }
    ensure_base_images(repo)?;
    for node in NODES {
        worker::ensure_kubelet(repo, &tools, node)?;
    }
    wait_for_nodes(repo, &tools, &kubectl)?;
    ensure_name_server(&kubectl)?;
    keep_all(repo, &tools)?;
    println!("cluster: up after {:.1} s", began.elapsed().as_secs_f32());
    println!("  export KUBECONFIG={}", layout::kubeconfig().display());
    println!("  {} get nodes", tools.bin("kubectl").display());
    println!("  cargo xtask cluster load     the mesh's images onto both nodes");
    Ok(())
}

/// Packages that only the cluster needs.
fn ensure_packages() -> Result<()> {
    apt::ensure(&[
        Need::new("containerd", "containerd", "runs the containers of the test cluster"),
        Need::new("runc", "runc", "containerd starts containers with it"),
        Need::new(
            "containernetworking-plugins",
            "/usr/lib/cni/ptp",
            "the pods of the test cluster get their network from it",
        ),
        Need::new("iptables", "iptables", "kube-proxy implements Services with it"),
        Need::new("conntrack", "conntrack", "kube-proxy removes stale flows with it"),
        Need::new("iproute2", "ip", "the nodes of the test cluster are linked with it"),
    ])
}

/// Whoever changes the cluster holds this.
fn lock() -> Result<File> {
    if let Some(folder) = Path::new(layout::LOCK).parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let file = File::create(layout::LOCK).with_context(|| format!("cannot open {}", layout::LOCK))?;
    file.lock().context("cannot lock the cluster")?;
    Ok(file)
}

/// Without these, no sandbox and no name server starts, and a kubelet that looked for them in vain asks again only after a while.
fn ensure_base_images(repo: &Repo) -> Result<()> {
    let base = [images::PAUSE, images::COREDNS];
    let references: Vec<String> = base.iter().filter_map(|program| images::reference(program)).collect();
    if runtime::have(&references)? {
        return Ok(());
    }
    step::work("images of sandbox and name server", || {
        images::write_base(repo)?;
        runtime::load(&images::archives(repo, &base)).map(drop)
    })
}

fn wait_for_nodes(repo: &Repo, tools: &Tools, kubectl: &Kubectl) -> Result<()> {
    for node in NODES {
        let [_, kubelet, _] = worker::daemons(repo, tools, node);
        step::wait(&format!("node {}", node.name()), PATIENCE, || {
            kubelet.until(|| {
                let found = kubectl.json(&["get", "node", &node.name()])?;
                status::readiness(&found).ok_or_else(|| status::why_not_ready(&found))?;
                knows_its_pods(kubectl, node)
            })
        })?;
    }
    Ok(())
}

/// A node stays Ready for a while after its kubelet ended; a new kubelet answers for its pods when it has heard of them.
fn knows_its_pods(kubectl: &Kubectl, node: Node) -> Result<(), String> {
    // A static pod has another uid at its kubelet than its mirror has in the API.
    let static_pod = |pod: &&Value| {
        pod.pointer("/metadata/annotations/kubernetes.io~1config.source")
            .is_some_and(|source| source != "api")
    };
    let uids = |list: &Value| -> BTreeSet<String> {
        let pods = list["items"].as_array().into_iter().flatten().filter(|pod| !static_pod(pod));
        pods.filter_map(|pod| pod.pointer("/metadata/uid")?.as_str().map(str::to_owned)).collect()
    };
    let selector = format!("--field-selector=spec.nodeName={}", node.name());
    let placed = kubectl.json(&["get", "pods", "--all-namespaces", &selector])?;
    let known = kubectl.output(&["get", &format!("--raw=/api/v1/nodes/{}/proxy/pods", node.name())])?;
    let known: Value = serde_json::from_str(&known).map_err(|error| error.to_string())?;
    match uids(&placed).difference(&uids(&known)).count() {
        0 => Ok(()),
        pods => Err(format!("its kubelet has not heard of {pods} of its pods yet")),
    }
}

/// What was started and is not waited for must at least not have ended.
fn keep_all(repo: &Repo, tools: &Tools) -> Result<()> {
    let workers = NODES.into_iter().flat_map(|node| worker::daemons(repo, tools, node));
    control::daemons(repo, tools).into_iter().chain(workers).try_for_each(|daemon| daemon.keep())
}

fn ensure_name_server(kubectl: &Kubectl) -> Result<()> {
    let deployment = ["--namespace=kube-system", "get", "deployment", "coredns"];
    if kubectl.json(&deployment).is_err() {
        let image = images::reference(images::COREDNS).context("there is no image of a name server")?;
        let manifests = include_str!("../kube/coredns.yaml")
            .replace("@IMAGE@", &image)
            .replace("@DOMAIN@", layout::DOMAIN)
            .replace("@ADDRESS@", layout::DNS);
        kubectl.apply(&manifests)?;
    }
    step::wait("the name server", PATIENCE, || {
        let available = kubectl.json(&deployment).map(|found| found["status"]["availableReplicas"].as_u64());
        Ok(match available {
            Ok(Some(1..)) => Wait::Done,
            Ok(_) => Wait::For("no pod of it is available".to_owned()),
            Err(reason) => Wait::For(reason),
        })
    })
}

fn load(repo: &Repo, options: &LoadOptions) -> Result<()> {
    if !options.no_build {
        product::build(repo)?;
        images::write_all(repo)?;
    }
    let _lock = lock()?;
    let archives = images::archives(repo, &[]);
    if archives.is_empty() {
        bail!("there is no archive in target/images: run `cargo xtask images`");
    }
    let imported = step::work("images onto both nodes", || runtime::load(&archives))?;
    println!("cluster: {} images, {imported} imported, the others were there", archives.len());
    Ok(())
}

/// Becomes the command.
fn enter(options: &EnterOptions) -> Result<()> {
    let node = NODES
        .into_iter()
        .find(|node| node.name() == options.node || node.name().ends_with(&format!("-{}", options.node)));
    let Some((node, (program, arguments))) = node.zip(options.command.split_first()) else {
        bail!("there is no node `{}`: say 1 or 2", options.node);
    };
    let error = sandbox::inside(node, program).args(arguments).exec();
    Err(error).context("cannot start nsenter")
}
