//! The data path's three questions about sockets, each one system call and no lock.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use mesh_abi::{OUTCOME_HONOURED, OwnSock, Tuple, TupleKey, own};

use super::{Hooks, Origin, OwnKind, VouchOutcome};

impl Hooks {
    /// Where the client behind a socket accepted from a pod's *outbound* listener wanted to go. Answers once.
    /// `None` = nobody was captured there (or the map was full): close the connection; it is counted.
    pub fn take_origin(&self, cookie: u64, peer: SocketAddr, local: SocketAddr) -> Option<Origin> {
        let key = TupleKey { cookie, tuple: Tuple::between(peer, local), reserved: 0 };
        let Ok(Some(origin)) = self.maps.origins.take(&key) else {
            self.origin_miss.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        Some(Origin {
            dst: origin.socket_addr(),
            client: self.by_own_address(cookie, peer),
            ifindex: Some(origin.ifindex).filter(|index| *index != 0),
        })
    }

    /// Policies name a pod by its address, not by loopback.
    fn by_own_address(&self, cookie: u64, peer: SocketAddr) -> SocketAddr {
        if !peer.ip().is_loopback() {
            return peer;
        }
        let own = self.maps.pods.get(&cookie).ok().flatten();
        let ip = own.map(|pod| if peer.is_ipv4() { pod.ip4 } else { pod.ip6 }).filter(|ip| !ip.is_zero());
        ip.map_or(peer, |ip| SocketAddr::new(ip.into(), peer.port()))
    }

    /// Says what a socket of the proxy is for. Must succeed before `connect()`, or the dial would be captured itself.
    pub fn mark_own(&self, socket: &impl AsFd, kind: OwnKind) -> io::Result<()> {
        let value = match kind {
            OwnKind::Plain => OwnSock { kind: own::PLAIN, ..OwnSock::default() },
            OwnKind::Vouch { dest_cookie } => OwnSock { kind: own::VOUCH, dest_cookie, ..OwnSock::default() },
            OwnKind::LastStep { client } => OwnSock {
                kind: own::LAST_STEP,
                client: client.ip().into(),
                client_port: client.port(),
                ..OwnSock::default()
            },
        };
        self.maps.own.set_of(socket.as_fd(), &value)
    }

    /// What became of a vouched dial; ask after its `connect()` succeeded and before the first byte.
    pub fn vouch_outcome(&self, socket: &impl AsFd) -> VouchOutcome {
        match self.maps.own.get_of(socket.as_fd()) {
            Ok(Some(own)) if own.outcome == OUTCOME_HONOURED => VouchOutcome::Honoured,
            _ => VouchOutcome::Missed,
        }
    }
}
