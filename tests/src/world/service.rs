//! Services of a world, and names for its clients.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::json;

use super::manifest;
use super::state::State;

/// A name with its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// `b.shop`.
    pub name: String,
    /// IPv4 and IPv6, in the order a client tries them.
    pub addresses: Vec<IpAddr>,
}

impl Host {
    /// As the client's table has it.
    pub fn entry(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        format!("{}={}", self.name, addresses.join(","))
    }

    /// Its IPv4 address.
    pub fn ip4(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv4)
    }
}

/// A service to be.
#[derive(Debug)]
pub struct ServiceBuilder {
    state: Arc<State>,
    name: String,
    namespace: String,
    selector: BTreeMap<String, String>,
    ports: Vec<serde_json::Value>,
    families: (bool, bool),
    headless: bool,
}

impl ServiceBuilder {
    pub(super) fn new(state: Arc<State>, name: &str) -> Self {
        let selector = BTreeMap::from([("app".to_owned(), name.to_owned())]);
        let (name, namespace) = (name.to_owned(), "shop".to_owned());
        Self { state, name, namespace, selector, ports: Vec::new(), families: (true, true), headless: false }
    }

    /// Its namespace; `shop` unless told.
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.to_owned();
        self
    }

    /// The label that its pods carry; `app: NAME` unless told.
    pub fn selects(mut self, label: &str, value: &str) -> Self {
        self.selector = BTreeMap::from([(label.to_owned(), value.to_owned())]);
        self
    }

    /// A port; the prefix of its name (`http`, `tcp`, …) is its protocol.
    pub fn port(mut self, name: &str, port: u16, target: u16) -> Self {
        self.ports.push(json!({ "name": name, "port": port, "targetPort": target, "protocol": "TCP" }));
        self
    }

    /// IPv4 alone.
    pub fn v4_only(mut self) -> Self {
        self.families = (true, false);
        self
    }

    /// No address of its own.
    pub fn headless(mut self) -> Self {
        self.headless = true;
        self
    }

    /// Writes it. Without ports it has `http` 80, and the TCP ports 9000 to 9004 of the echo application.
    pub fn create(mut self) -> Result<Host> {
        self.state.need_namespace(&self.namespace)?;
        if self.ports.is_empty() {
            self = self.port("http", 80, 80);
            for (name, port) in
                [("echo", 9000), ("banner", 9001), ("sum", 9002), ("source", 9003), ("closer", 9004)]
            {
                self = self.port(&format!("tcp-{name}"), port, port);
            }
        }
        let number = {
            let mut owned = self.state.owned();
            owned.next_service =
                owned.next_service.checked_add(1).context("a world has no more service addresses")?;
            owned.next_service
        };
        let mut addresses = Vec::new();
        if self.families.0 {
            addresses.push(IpAddr::V4(Ipv4Addr::new(10, 96, 0, number)));
        }
        if self.families.1 {
            addresses.push(IpAddr::V6(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, u16::from(number))));
        }
        let ips: Vec<String> = match self.headless {
            true => vec!["None".to_owned()],
            false => addresses.iter().map(IpAddr::to_string).collect(),
        };
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": self.name, "namespace": self.namespace },
            "spec": { "clusterIP": ips.first(), "clusterIPs": ips, "selector": self.selector, "ports": self.ports },
        });
        self.state.write_config(&manifest::file_of(&object)?, &manifest::render(&[object]))?;
        let short = format!("{}.{}", self.name, self.namespace);
        let host = Host { name: short.clone(), addresses };
        let mut owned = self.state.owned();
        for name in
            [self.name.clone(), short.clone(), format!("{short}.svc"), format!("{short}.svc.cluster.local")]
        {
            owned.hosts.insert(name.clone(), Host { name, ..host.clone() });
        }
        Ok(host)
    }
}
