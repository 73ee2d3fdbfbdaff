//! The shop of `samples/`, on a world's two nodes.
//!
//! Invariant: the YAML *is* the placement. Which pods there are, on which node, with which address and environment, is
//! read from the samples; nothing of it is written down here a second time.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mesh_proto::v1::Severity;
use serde::Deserialize;
use serde_json::Value;

use super::screen::Screen;
use crate::{Answer, Pod, World, repo};

/// The page that everything is about.
pub const PAGE: &str = "http://productpage:9080/productpage";

/// How the samples name network namespaces; a world's own names are unique to its run.
const SAMPLE_NETNS: &str = "/run/netns/tl-demo-";

/// Files of `samples/shop`. Its Nodes are the world's own: the harness has declared them, with their addresses.
const FILES: [&str; 3] = ["10-namespaces.yaml", "20-pods.yaml", "30-services.yaml"];

/// Where agents pin what they attach.
const PINS: &str = "/sys/fs/bpf/tulle";

/// The range of the samples' ClusterIPs. Nobody but the mesh answers for them.
const SERVICE_RANGE: &str = "10.96.0.0/16";

/// A running shop.
#[derive(Debug)]
pub struct Shop {
    /// The world that it is in.
    pub world: World,
    samples: PathBuf,
    pods: Vec<Declared>,
    services: Vec<Service>,
}

/// A Pod of the samples.
#[derive(Debug)]
struct Declared {
    name: String,
    namespace: String,
    account: String,
    node: u8,
    ip4: Ipv4Addr,
    ip6: Option<Ipv6Addr>,
    labels: BTreeMap<String, String>,
    environment: Vec<(String, String)>,
}

/// A Service of the samples.
#[derive(Debug)]
struct Service {
    name: String,
    namespace: String,
    vip: IpAddr,
    selector: BTreeMap<String, String>,
}

impl Shop {
    /// Starts the world, with its mesh and without pods.
    pub fn start() -> Result<Self> {
        let samples = repo::root().join("samples");
        let documents = |file: &str| -> Result<Vec<Value>> {
            let path = samples.join("shop").join(file);
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            serde_yaml_ng::Deserializer::from_str(&text)
                .map(|document| Value::deserialize(document).with_context(|| path.display().to_string()))
                .collect()
        };
        let pods = documents("20-pods.yaml")?.iter().map(Declared::read).collect::<Result<_>>()?;
        let services = documents("30-services.yaml")?.iter().map(Service::read).collect::<Result<_>>()?;
        let world = World::new("demo").nodes(2).start()?;
        Ok(Self { world, samples, pods, services })
    }

    /// Shows what runs where.
    pub fn describe_nodes(&self, screen: &Screen) -> Result<()> {
        for node in [1, 2] {
            let pid = self.world.pid(&format!("node-{node}")).context("the agent is gone")?;
            let address = World::node_address(node);
            let hooks = self.hooks(node)?.join(" ");
            screen.fact(
                &format!("node-{node}"),
                &format!("{address}, mesh-node (pid {pid}) is ready; hooks: {hooks}"),
            );
        }
        let folder = self.world.folder();
        screen.fact("controller", &format!("--source dir:{0}/config --state {0}/state", folder.display()));
        Ok(())
    }

    /// The eBPF programs that a node's agent has attached and pinned.
    fn hooks(&self, node: u8) -> Result<Vec<String>> {
        let pins = Path::new(PINS).join(format!("tl-{}-node-{node}", self.world.name()));
        let versions = fs::read_dir(&pins).with_context(|| pins.display().to_string())?;
        let links = versions.flatten().filter_map(|version| fs::read_dir(version.path().join("links")).ok());
        let names = links.flatten().flatten().filter_map(|link| link.file_name().into_string().ok());
        let mut hooks: Vec<String> = names.map(|name| name.trim_start_matches("tulle_").to_owned()).collect();
        hooks.sort();
        ensure!(!hooks.is_empty(), "the agent of node-{node} has attached nothing");
        Ok(hooks)
    }

    /// Starts the applications, gives the controller its copy of the samples, and asks for one page.
    pub fn open(&self, screen: &Screen) -> Result<()> {
        self.name_services();
        for pod in &self.pods {
            pod.spawn(&self.world).with_context(|| format!("pod {}", pod.name))?;
        }
        let netns = format!("/run/netns/tl-{}-", self.world.name());
        for file in FILES {
            let text = self.sample(&format!("shop/{file}"))?.replace(SAMPLE_NETNS, &netns);
            self.world.write_file(file, &text)?;
        }
        self.settle()?;
        let row = |pod: &Declared| {
            let identity = format!("spiffe://cluster.local/ns/{}/sa/{}", pod.namespace, pod.account);
            vec![pod.name.clone(), format!("node-{}", pod.node), pod.ip4.to_string(), pod.calls(), identity]
        };
        let rows: Vec<_> = self.pods.iter().map(row).collect();
        screen.table(&["pod", "node", "address", "calls", "identity, once enrolled"], &rows);
        let page = self.page(&[])?;
        screen.good(&format!(
            "{PAGE}: {} with details and reviews {}",
            page.status(),
            page.text("/reviews/version")
        ));
        Ok(())
    }

    /// A running pod.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        self.world.find(name).with_context(|| format!("samples/shop has no pod {name}"))
    }

    /// The node of a workload as metrics name it: a pod, or the owner of several pods of one node.
    pub fn node_of(&self, workload: &str) -> Option<u8> {
        let named = |pod: &&Declared| {
            pod.name == workload || pod.name.strip_prefix(workload).is_some_and(|rest| rest.starts_with('-'))
        };
        self.pods.iter().find(named).map(|pod| pod.node)
    }

    /// How many pods the samples declare in a namespace.
    pub fn pods_in(&self, namespace: &str) -> usize {
        self.pods.iter().filter(|pod| pod.namespace == namespace).count()
    }

    /// One page for the pod `load`, whole.
    pub fn page(&self, headers: &[(&str, &str)]) -> Result<Answer> {
        let call = self.pod("load")?.call(PAGE);
        let answer = headers.iter().fold(call, |call, (name, value)| call.header(name, value)).send()?;
        ensure!(answer.status() == 200, "{PAGE} answers {}: {}", answer.status(), answer.body());
        for part in ["details", "reviews"] {
            ensure!(
                answer.text(&format!("/{part}/app")) == part,
                "the page has no {part}: {}",
                answer.body()
            );
        }
        Ok(answer)
    }

    /// Puts the namespace `shop` into the mesh, by the one word that its sample tells people to change.
    pub fn enrol(&self) -> Result<Duration> {
        let file = "10-namespaces.yaml";
        let text = self.sample(&format!("shop/{file}"))?;
        let (before, after) = ("tulle.dev/mesh: disabled", "tulle.dev/mesh: enabled");
        ensure!(text.contains(before), "samples/shop/{file} does not say `{before}`");
        self.write_and_settle(file, &text.replace(before, after))
    }

    /// Adds a file of `samples/`; gives the time until both nodes had applied it.
    pub fn apply(&self, file: &str) -> Result<Duration> {
        self.write_and_settle(file, &self.sample(file)?)
    }

    fn write_and_settle(&self, file: &str, text: &str) -> Result<Duration> {
        let begun = Instant::now();
        self.world.write_file(file, text)?;
        self.settle()?;
        Ok(begun.elapsed())
    }

    fn settle(&self) -> Result<()> {
        let settled = self.world.settle()?;
        let error = settled.diagnostics.iter().find(|finding| finding.severity() == Severity::Error);
        if let Some(finding) = error {
            bail!("{} {}: {} {}", finding.code, finding.object, finding.field, finding.message);
        }
        Ok(())
    }

    fn sample(&self, file: &str) -> Result<String> {
        let path = self.samples.join(file);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// The names that a cluster's DNS would give: the ClusterIP, and behind it the pods themselves. There is no kube-proxy here:
    /// outside of the mesh a ClusterIP is unreachable at once, and a client goes on to the next address.
    fn name_services(&self) {
        for service in &self.services {
            let selects = |pod: &&Declared| {
                pod.namespace == service.namespace
                    && service.selector.iter().all(|(name, value)| pod.labels.get(name) == Some(value))
            };
            let pods = self.pods.iter().filter(selects).map(|pod| IpAddr::V4(pod.ip4));
            let addresses: Vec<IpAddr> = [service.vip].into_iter().chain(pods).collect();
            let full = format!("{}.{}", service.name, service.namespace);
            for name in [service.name.clone(), full.clone(), format!("{full}.svc.cluster.local")] {
                self.world.name_host(&name, addresses.clone());
            }
        }
    }
}

impl Declared {
    fn read(document: &Value) -> Result<Self> {
        let name = text(document, "/metadata/name")?;
        let read = || -> Result<Self> {
            let addresses: Vec<IpAddr> = list(document, "/status/podIPs")
                .iter()
                .map(|entry| Ok(text(entry, "/ip")?.parse()?))
                .collect::<Result<_>>()?;
            let environment = list(document, "/spec/containers/0/env")
                .iter()
                .map(|entry| Ok((text(entry, "/name")?, text(entry, "/value")?)))
                .collect::<Result<_>>()?;
            let node = text(document, "/spec/nodeName")?;
            Ok(Self {
                name: name.clone(),
                namespace: text(document, "/metadata/namespace")?,
                account: text(document, "/spec/serviceAccountName")?,
                node: node.trim_start_matches("node-").parse().with_context(|| format!("node {node}"))?,
                ip4: addresses.iter().find_map(v4).context("no IPv4 address")?,
                ip6: addresses.iter().find_map(v6),
                labels: texts(document, "/metadata/labels"),
                environment,
            })
        };
        read().with_context(|| format!("pod {name} of the samples"))
    }

    fn spawn(&self, world: &World) -> Result<()> {
        let mut builder = world
            .pod(&self.name)
            .namespace(&self.namespace)
            .service_account(&self.account)
            .node(self.node)
            .address(self.ip4, self.ip6)
            .declared_elsewhere();
        for (name, value) in &self.environment {
            builder = builder.env(name, value);
        }
        builder.spawn()?.ip(&format!("route add unreachable {SERVICE_RANGE}\n"))
    }

    fn calls(&self) -> String {
        let calls = self.environment.iter().find(|(name, _)| name == "SHOP_CALLS");
        calls.map_or_else(|| "-".to_owned(), |(_, value)| value.replace(',', ", "))
    }
}

impl Service {
    fn read(document: &Value) -> Result<Self> {
        let name = text(document, "/metadata/name")?;
        Ok(Self {
            namespace: text(document, "/metadata/namespace")?,
            vip: text(document, "/spec/clusterIP")?
                .parse()
                .with_context(|| format!("clusterIP of {name}"))?,
            selector: texts(document, "/spec/selector"),
            name,
        })
    }
}

fn v4(address: &IpAddr) -> Option<Ipv4Addr> {
    if let IpAddr::V4(address) = address { Some(*address) } else { None }
}

fn v6(address: &IpAddr) -> Option<Ipv6Addr> {
    if let IpAddr::V6(address) = address { Some(*address) } else { None }
}

fn text(document: &Value, pointer: &str) -> Result<String> {
    let found = document.pointer(pointer).and_then(Value::as_str);
    found.map(str::to_owned).with_context(|| format!("no text at {pointer}"))
}

fn list<'a>(document: &'a Value, pointer: &str) -> &'a [Value] {
    document.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn texts(document: &Value, pointer: &str) -> BTreeMap<String, String> {
    let entries = document.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}
