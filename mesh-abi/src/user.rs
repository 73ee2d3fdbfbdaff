//! The user side: `std::net` in and out, and the marker by which aya copies these types.
//!
//! Invariant: an address leaves here canonical, so that `::ffff:10.0.0.1` and `10.0.0.1` never are two things.

#![allow(
    unsafe_code,
    reason = "aya::Pod is an unsafe marker trait; every type here is repr(C) without padding"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{Addr, CidrKey, Client, Origin, OwnSock, PodEntry, PodTraffic, PortKey, Tuple, TupleKey, Vouch};

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => ip.into(),
        }
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(ip: Ipv4Addr) -> Self {
        Addr::v4(u32::from_ne_bytes(ip.octets()))
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(ip: Ipv6Addr) -> Self {
        let octets = ip.octets();
        let word =
            |at: usize| u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
        Addr::v6([word(0), word(4), word(8), word(12)])
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        let mut octets = [0; 16];
        for (bytes, word) in octets.chunks_exact_mut(4).zip(addr.words()) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
    }
}

impl Tuple {
    /// The tuple of a connection from `client` to `server`.
    pub fn between(client: SocketAddr, server: SocketAddr) -> Tuple {
        Tuple {
            client: client.ip().into(),
            server: server.ip().into(),
            client_port: client.port(),
            server_port: server.port(),
        }
    }
}

impl Origin {
    /// Where the client wanted to go.
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(self.addr.into(), self.port)
    }
}

macro_rules! pod {
    ($($name:ty),+ $(,)?) => {
        $(
            // SAFETY: repr(C), integers only, no padding (sizes asserted in layout.rs), any bit pattern is valid.
            unsafe impl aya::Pod for $name {}
        )+
    };
}

pod!(Addr, CidrKey, Client, Origin, OwnSock, PodEntry, PodTraffic, PortKey, Tuple, TupleKey, Vouch);
