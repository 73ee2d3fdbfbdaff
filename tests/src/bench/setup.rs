//! The stage: one world with enrolled and unenrolled pods, and the peers' proxies in the same node namespaces.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::{
    Setup,
    envoy::{Envoys, Upstream},
    machine::resident_mib,
};
use crate::{Pod, World};

/// The echo application's HTTP port.
const HTTP: u16 = 80;
/// Its port that sends a stream of known bytes.
const STREAM: u16 = 9003;

/// Where a client sends what.
#[derive(Debug, Clone)]
pub struct Target {
    /// An address, or a name that the client resolves.
    pub host: String,
    /// HTTP/1.1.
    pub http_port: u16,
    /// The stream source.
    pub stream_port: u16,
}

/// Everything up and running.
#[derive(Debug)]
pub struct Stage {
    plain: Pods,
    meshed: Pods,
    envoys: Option<Envoys>,
    world: World,
}

#[derive(Debug)]
struct Pods {
    client: Pod,
    same: Pod,
    cross: Pod,
}

impl Pods {
    fn spawn(world: &World, namespace: &str) -> Result<Self> {
        let pod = |name: &str, node| {
            world
                .pod(&format!("{name}-{namespace}"))
                .node(node)
                .namespace(namespace)
                .env("TOKIO_WORKER_THREADS", "2")
                .spawn()
        };
        Ok(Self { client: pod("client", 1)?, same: pod("same", 1)?, cross: pod("cross", 2)? })
    }
}

impl Stage {
    /// Starts the world, the pods and the Envoys that the setups need.
    pub fn build(setups: &[Setup]) -> Result<Self> {
        let world = World::new("bench").nodes(2).start()?;
        world.enrol("free", false)?;
        world.enrol("meshed", true)?;
        let plain = Pods::spawn(&world, "free")?;
        let meshed = Pods::spawn(&world, "meshed")?;
        for (name, pod) in [("same", &meshed.same), ("cross", &meshed.cross)] {
            world
                .service(name)
                .namespace("meshed")
                .selects("app", pod.name())
                .port("http", HTTP, HTTP)
                .port("tcp-stream", STREAM, STREAM)
                .create()?;
        }
        world.settle()?;
        let needs_envoy =
            setups.iter().any(|s| matches!(s, Setup::EnvoyHop | Setup::EnvoyPairH2 | Setup::EnvoyTcp));
        let envoys = if needs_envoy {
            let upstream = |pod: &Pod, port| Upstream { address: pod.ip4(), port };
            Some(Envoys::start(
                &world,
                upstream(&plain.same, HTTP),
                upstream(&plain.cross, HTTP),
                upstream(&plain.cross, STREAM),
            )?)
        } else {
            None
        };
        Ok(Self { plain, meshed, envoys, world })
    }

    /// Who calls, and whom, in this setup.
    pub fn target(&self, setup: Setup) -> (&Pod, Target) {
        let at = |host: String| Target { host, http_port: HTTP, stream_port: STREAM };
        let envoy = |ports: (u16, u16)| Target {
            host: World::node_address(1).to_string(),
            http_port: ports.0,
            stream_port: ports.1,
        };
        match setup {
            Setup::Direct => (&self.plain.client, at(self.plain.cross.ip4().to_string())),
            Setup::DirectSame => (&self.plain.client, at(self.plain.same.ip4().to_string())),
            Setup::TulleSame => (&self.meshed.client, at("same.meshed".to_owned())),
            Setup::TulleCross => (&self.meshed.client, at("cross.meshed".to_owned())),
            Setup::EnvoyHop => (&self.plain.client, envoy(Envoys::HOP)),
            Setup::EnvoyPairH2 => (&self.plain.client, envoy(Envoys::PAIR_H2)),
            Setup::EnvoyTcp => (&self.plain.client, envoy(Envoys::TCP)),
        }
    }

    /// Memory of the setup's proxies together; None where there is none.
    pub fn memory_mib(&self, setup: Setup) -> Result<Option<f64>> {
        let agent = |name: &str| {
            self.world.pid(name).with_context(|| format!("no process {name}")).and_then(resident_mib)
        };
        let envoy = |names: &[&str]| -> Result<Option<f64>> {
            let Some(envoys) = &self.envoys else { return Ok(None) };
            let pids = names.iter().filter_map(|name| envoys.pid(name));
            pids.map(resident_mib).sum::<Result<f64>>().map(Some)
        };
        match setup {
            Setup::Direct | Setup::DirectSame => Ok(None),
            Setup::TulleSame => agent("node-1").map(Some),
            Setup::TulleCross => Ok(Some(agent("node-1")? + agent("node-2")?)),
            Setup::EnvoyHop => envoy(&["hop"]),
            Setup::EnvoyPairH2 => envoy(&["h2-client", "h2-server"]),
            Setup::EnvoyTcp => envoy(&["tcp-client", "tcp-server"]),
        }
    }
}

impl Upstream {
    /// The address of the node's own proxy.
    pub fn node(number: u8, port: u16) -> Self {
        let address: Ipv4Addr = World::node_address(number);
        Self { address, port }
    }
}
