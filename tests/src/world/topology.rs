//! Fabric, nodes and pods as namespaces joined by veths.
//!
//! The fabric routes between nodes and knows pods by their node's range; a node knows each of its pods by a /32 and a
//! /128 (or, with bridges, by a shared link). All addresses are the same in every world: they never leave it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::Result;

use super::state::State;
use crate::net::Netns;

/// The fabric's address, where the controller listens.
pub const FABRIC: &str = "172.30.0.1";
const FABRIC6: &str = "fd00:172:30::1";

/// The gateway that every pod sees: link-local, so that no pod's range loses an address to it.
const GATEWAY: &str = "169.254.1.1";

/// The address of a node in the fabric.
pub fn node_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, 0, 10 + number)
}

fn node_address6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x172, 0x30, 0, 0, 0, 0, 0x10 + u16::from(number))
}

/// Forwarding, no reverse-path filter, addresses usable at once.
const ROUTER: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
];

/// Makes the fabric and the nodes.
pub fn build(state: &State, nodes: u8) -> Result<()> {
    let fabric = Netns::create(&state.netns_name("fabric"))?;
    fabric.sysctl(ROUTER)?;
    fabric.ip(&format!("addr add {FABRIC}/32 dev lo\n"))?;
    for number in 1..=nodes {
        let node = Netns::create(&state.netns_name(&format!("node-{number}")))?;
        node.sysctl(ROUTER)?;
        join(&fabric, &node, number)?;
        if state.bridges() {
            let (gateway, gateway6) = State::pod_addresses(number, 1);
            node.ip(&format!(
                "link add br0 type bridge\nlink set br0 up\n\
                 addr add {gateway}/24 dev br0\naddr add {gateway6}/64 dev br0 nodad\n"
            ))?;
        }
        state.owned().namespaces.insert(format!("node-{number}"), node);
    }
    state.owned().namespaces.insert("fabric".to_owned(), fabric);
    Ok(())
}

fn join(fabric: &Netns, node: &Netns, number: u8) -> Result<()> {
    let (link, address, address6) = (format!("n{number}"), node_address(number), node_address6(number));
    fabric.ip(&format!("link add {link} type veth peer name eth0 netns {}\n", node.name()))?;
    node.ip(&format!(
        "link set eth0 up\naddr add {address}/32 dev eth0\naddr add {address6}/128 dev eth0 nodad\n\
         route add {FABRIC} dev eth0 scope link\nroute add default via {FABRIC} dev eth0\n\
         route add {FABRIC6} dev eth0\nroute add ::/0 via {FABRIC6} dev eth0\n"
    ))?;
    // Unlike ARP, neighbour discovery answers only for addresses of the link that was asked on: each link has this one.
    fabric.ip(&format!(
        "link set {link} up\naddr add {FABRIC6}/128 dev {link} nodad\nroute add {address} dev {link} scope link\nroute add 10.244.{number}.0/24 via {address} dev {link}\n\
         route add {address6} dev {link}\nroute add fd00:10:244:{number}::/64 via {address6} dev {link}\n"
    ))
}

/// What a pod's link needs to know.
pub struct Wiring<'a> {
    /// The pod's namespace, made already.
    pub pod: &'a Netns,
    /// The name of its node's namespace.
    pub node: &'a Netns,
    /// The host side of its link.
    pub link: &'a str,
    /// Its address.
    pub ip4: Ipv4Addr,
    /// Its IPv6 address, unless it has none.
    pub ip6: Option<Ipv6Addr>,
}

/// Joins a pod to its node by a routed link.
pub fn route_pod(wiring: &Wiring) -> Result<()> {
    let Wiring { pod, node, link, ip4, ip6 } = wiring;
    prepare_pod(wiring)?;
    node.ip(&format!(
        "link set {link} up\naddr add {GATEWAY}/32 dev {link}\naddr add fe80::1/64 dev {link} nodad\nroute replace {ip4} dev {link}\n"
    ))?;
    pod.ip(&format!(
        "link set eth0 up\naddr add {ip4}/32 dev eth0\nroute add {GATEWAY} dev eth0 scope link\n\
         route add default via {GATEWAY} dev eth0\n"
    ))?;
    if let Some(ip6) = ip6 {
        node.ip(&format!("route replace {ip6} dev {link}\n"))?;
        pod.ip(&format!("addr add {ip6}/128 dev eth0 nodad\nroute add ::/0 via fe80::1 dev eth0\n"))?;
    }
    Ok(())
}

/// Joins a pod to its node's bridge.
pub fn bridge_pod(wiring: &Wiring, node_number: u8) -> Result<()> {
    let Wiring { pod, node, link, ip4, ip6 } = wiring;
    prepare_pod(wiring)?;
    let (gateway, gateway6) = State::pod_addresses(node_number, 1);
    node.ip(&format!("link set {link} master br0\nlink set {link} up\n"))?;
    pod.ip(&format!("link set eth0 up\naddr add {ip4}/24 dev eth0\nroute add default via {gateway}\n"))?;
    if let Some(ip6) = ip6 {
        pod.ip(&format!("addr add {ip6}/64 dev eth0 nodad\nroute add ::/0 via {gateway6}\n"))?;
    }
    Ok(())
}

fn prepare_pod(wiring: &Wiring) -> Result<()> {
    let Wiring { pod, node, link, ip6, .. } = wiring;
    let without6 = if ip6.is_some() { "0" } else { "1" };
    pod.sysctl(&[("ipv6/conf/all/accept_dad", "0"), ("ipv6/conf/default/accept_dad", "0")])?;
    pod.sysctl(&[("ipv6/conf/all/disable_ipv6", without6), ("ipv6/conf/default/disable_ipv6", without6)])?;
    node.ip(&format!("link add {link} type veth peer name eth0 netns {}\n", pod.name()))
}

/// Whether a link is still there, seen from `netns`.
pub fn has_link(netns: &Path, link: &str) -> Result<bool> {
    crate::net::in_netns(netns, || {
        std::fs::read_to_string("/proc/net/dev").is_ok_and(|all| {
            all.lines().any(|line| line.split(':').next().is_some_and(|name| name.trim() == link))
        })
    })
}
