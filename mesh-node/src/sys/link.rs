//! What a pod's netns looks like from inside: addresses, routes, forwarding, and the host's end of its veth.
//!
//! Invariant: only reads. Files under `/proc/thread-self/net` and netlink sockets are those of the thread's netns.

use std::fs;
use std::io;
use std::net::IpAddr;

use super::Netns;
use super::netlink::{self, Netlink, attributes, text, word};

const RTM_GETLINK: u16 = 18;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// Length of `struct ifinfomsg`.
const IFINFO: usize = 16;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN`.
const NFT_GETCHAIN: u16 = 10 << 8 | 4;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_CHAIN_TYPE: u16 = 7;
/// Length of `struct nfgenmsg`.
const NFGEN: usize = 4;

/// Flags of a line of `ipv6_route`: up; and reject, anycast, local.
const RTF_UP: u32 = 1;
const RTF_NOT_OUTWARD: u32 = 0x200 | 0x10_0000 | 0x8000_0000;

/// The host's end of a pod's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VethPeer {
    /// Name in the node's netns.
    pub name: String,
    /// The bridge it is a port of: then neighbours share an L2 segment, and a vouch could be spoofed.
    pub bridge: Option<String>,
}

/// Which families a netns can reach beyond itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routes {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// An interface, as `RTM_GETLINK` shows it.
#[derive(Debug, Default)]
struct Link {
    index: u32,
    name: String,
    kind: String,
    /// For a veth: index of the other end, in its netns.
    peer: Option<u32>,
    master: Option<u32>,
}

/// The addresses of the netns, loopback and link-local ones excepted.
pub fn local_addresses(netns: &Netns) -> io::Result<Vec<IpAddr>> {
    let found = netns.enter(addresses)??.into_iter().map(|(_, ip)| ip);
    let outward = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    Ok(found.filter(outward).collect())
}

/// Index of the device that holds the first of these addresses; 0 = none does.
pub fn device_of(netns: &Netns, mut ips: impl Iterator<Item = IpAddr>) -> io::Result<u32> {
    netns.enter(|| {
        let held = addresses()?;
        let name =
            ips.find_map(|ip| held.iter().find(|(_, held)| *held == ip)).map(|(name, _)| name.as_str());
        Ok(name.map(nix::net::if_::if_nametoindex).transpose()?.unwrap_or(0))
    })?
}

/// Devices and addresses of this thread's netns.
fn addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let ip = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let ip = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?;
        Some((interface.interface_name, ip))
    };
    Ok(nix::ifaddrs::getifaddrs()?.filter_map(ip).collect())
}

/// Has the netns a route outward for each family? An on-link prefix counts: a neighbour is reached by it.
pub fn routes(netns: &Netns) -> io::Result<Routes> {
    let (v4, v6) = netns.enter(|| {
        let v4 = fs::read_to_string("/proc/thread-self/net/route")?;
        // Absent where the kernel has no IPv6.
        let v6 = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap_or_default();
        Ok::<_, io::Error>((v4, v6))
    })??;
    Ok(Routes { v4: v4.lines().skip(1).any(is_outward4), v6: v6.lines().any(is_outward6) })
}

/// `Iface Destination Gateway Flags …`: the table has no local routes.
fn is_outward4(line: &str) -> bool {
    let mut fields = line.split_ascii_whitespace();
    let device = fields.next();
    let flags = fields.nth(2).and_then(|flags| u32::from_str_radix(flags, 16).ok()).unwrap_or(0);
    device != Some("lo") && flags & RTF_UP != 0 && flags & 0x200 == 0
}

/// `destination prefix source prefix gateway metric refs use flags device`.
fn is_outward6(line: &str) -> bool {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [destination, .., flags, device] = fields[..] else { return false };
    let flags = u32::from_str_radix(flags, 16).unwrap_or(0);
    let narrow = destination.starts_with("fe8") || destination.starts_with("ff");
    device != "lo" && !narrow && flags & RTF_UP != 0 && flags & RTF_NOT_OUTWARD == 0
}

/// Why the netns carries traffic of others, if it does: NAT rules, or forwarding between a bridge or tap and the rest.
///
/// `ip_forward=1` alone says nothing: a netns inherits it from the host, and every Kubernetes node forwards.
pub fn forwards(netns: &Netns) -> io::Result<Option<String>> {
    netns.enter(|| {
        for table in ["ip_tables_names", "ip6_tables_names"] {
            let names = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
            if names.lines().any(|name| name == "nat") {
                return Ok(Some(
                    "it has an iptables nat table (a VM, docker-in-docker, or a leftover istio-init)".into(),
                ));
            }
        }
        if has_nft_nat() {
            return Ok(Some(
                "it has nftables nat rules (a VM, docker-in-docker, or a leftover istio-init)".into(),
            ));
        }
        let forwarding = fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?.trim() == "1";
        let inner = links()?
            .into_iter()
            .find(|link| ["bridge", "tun", "tap", "macvtap"].contains(&link.kind.as_str()));
        Ok(inner
            .filter(|_| forwarding)
            .map(|link| format!("it forwards for what is behind its {} {}", link.kind, link.name)))
    })?
}

/// Is there a base chain of type nat with rules? A kernel without nftables has none.
fn has_nft_nat() -> bool {
    let mut found = false;
    let Ok(netlink) = Netlink::open(netlink::NETFILTER) else { return false };
    let _ = netlink.dump(NFT_GETCHAIN, &[0; NFGEN], |body| {
        let (mut nat, mut used) = (false, false);
        for (kind, value) in attributes(body.get(NFGEN..).unwrap_or_default()) {
            match kind {
                NFTA_CHAIN_TYPE => nat = text(value) == "nat",
                NFTA_CHAIN_USE => used = value.iter().any(|byte| *byte != 0),
                _ => {}
            }
        }
        found |= nat && used;
    });
    found
}

/// The host's end of each veth of the netns, looked up in the calling thread's netns.
pub fn bridge_master(netns: &Netns) -> io::Result<Vec<VethPeer>> {
    let inside = netns.enter(links)??;
    let here = links()?;
    let peer = |link: &Link| {
        let index = link.peer.filter(|_| link.kind == "veth")?;
        let end = here.iter().find(|end| end.index == index && end.kind == "veth")?;
        let master = end.master.and_then(|index| here.iter().find(|link| link.index == index));
        let bridge = master.filter(|master| master.kind == "bridge" || master.kind == "openvswitch");
        Some(VethPeer { name: end.name.clone(), bridge: bridge.map(|bridge| bridge.name.clone()) })
    };
    Ok(inside.iter().filter_map(peer).collect())
}

/// The interfaces of this thread's netns.
fn links() -> io::Result<Vec<Link>> {
    let mut found = Vec::new();
    Netlink::open(netlink::ROUTE)?.dump(RTM_GETLINK, &[0; IFINFO], |body| {
        let mut link = Link { index: word(body, 4).unwrap_or(0), ..Link::default() };
        for (kind, value) in attributes(body.get(IFINFO..).unwrap_or_default()) {
            match kind {
                IFLA_IFNAME => link.name = text(value),
                IFLA_LINK => link.peer = word(value, 0),
                IFLA_MASTER => link.master = word(value, 0),
                IFLA_LINKINFO => {
                    let name = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                    link.kind = name.map(|(_, name)| text(name)).unwrap_or_default();
                }
                _ => {}
            }
        }
        found.push(link);
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_local_and_rejecting_routes_do_not_lead_outward() {
        let route = |destination: &str, flags: &str, device: &str| {
            let zero = "00000000000000000000000000000000";
            is_outward6(&format!(
                "{destination} 40 {zero} 00 {zero} 00000100 00000001 00000000 {flags} {device}"
            ))
        };
        assert!(route("fd000000000000000000000000000000", "00000001", "eth0"));
        assert!(route("00000000000000000000000000000000", "00000003", "eth0"));
        assert!(!route("fe800000000000000000000000000000", "00000001", "eth0"));
        assert!(!route("fd000000000000000000000000000001", "80200001", "eth0"));
        assert!(!route("00000000000000000000000000000000", "00200200", "lo"));
    }
}
