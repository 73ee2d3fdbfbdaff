//! Socket diagnosis: which TCP connections a pod has, and ending some of them.
//!
//! Invariant: a connection is named by the kernel's socket cookie, so that what is destroyed is what was looked at.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::Netns;
use super::netlink::{self, Netlink, word};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// Length of `struct inet_diag_sockid`.
const SOCKID: usize = 48;
/// Every state but listen, close and time-wait: established, half-open and half-closed.
const LIVE: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// `TCP_LISTEN`.
const LISTENING: u32 = 1 << 10;
const FAMILIES: [u8; 2] = [libc::AF_INET as u8, libc::AF_INET6 as u8];

/// A TCP connection inside a netns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpConnection {
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// The kernel's name of the socket: never used twice.
    pub cookie: u64,
    /// Inode of the socket; 0 = no process holds it.
    pub inode: u32,
    /// Is it past its handshake?
    pub established: bool,
    id: [u8; SOCKID],
    family: u8,
}

impl TcpConnection {
    /// Does it stay inside the netns?
    pub fn is_loopback(&self) -> bool {
        self.local.ip().is_loopback() || self.remote.ip().is_loopback() || self.local.ip() == self.remote.ip()
    }
}

/// The TCP connections of a netns, half-open ones included.
pub fn connections(netns: &Netns) -> io::Result<Vec<TcpConnection>> {
    netns.enter(|| {
        let netlink = Netlink::open(netlink::SOCK_DIAG)?;
        let mut found = Vec::new();
        for family in FAMILIES {
            netlink.dump(SOCK_DIAG_BY_FAMILY, &request(family, &[0; SOCKID], LIVE), |body| {
                found.extend(connection(body))
            })?;
        }
        Ok(found)
    })?
}

/// Inodes of the sockets that listen on a TCP port in the netns of this thread, at whatever address.
pub fn listeners(port: u16) -> io::Result<Vec<u32>> {
    let netlink = Netlink::open(netlink::SOCK_DIAG)?;
    let mut found = Vec::new();
    for family in FAMILIES {
        netlink.dump(SOCK_DIAG_BY_FAMILY, &request(family, &[0; SOCKID], LISTENING), |body| {
            found.extend(
                connection(body).filter(|socket| socket.local.port() == port).map(|socket| socket.inode),
            );
        })?;
    }
    Ok(found)
}

/// Counts the TCP connections of a netns for which `matches`.
pub fn count_established(
    netns: &Netns,
    mut matches: impl FnMut(&TcpConnection) -> bool,
) -> io::Result<usize> {
    Ok(connections(netns)?.iter().filter(|connection| matches(connection)).count())
}

/// Ends (RST to both sides) the TCP connections of a netns for which `matches`, half-open ones included; says how many.
pub fn destroy_established(
    netns: &Netns,
    mut matches: impl FnMut(&TcpConnection) -> bool,
) -> io::Result<usize> {
    let doomed: Vec<_> = connections(netns)?.into_iter().filter(|connection| matches(connection)).collect();
    netns.enter(|| {
        let netlink = Netlink::open(netlink::SOCK_DIAG)?;
        let mut destroyed = 0;
        for connection in &doomed {
            match netlink.order(SOCK_DESTROY, &request(connection.family, &connection.id, LIVE)) {
                Ok(()) => destroyed += 1,
                // It ended by itself meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(destroyed)
    })?
}

/// Does this kernel end connections on request? Asks it to end one that cannot exist.
pub fn can_destroy() -> io::Result<bool> {
    let nobody = request(libc::AF_INET as u8, &[0; SOCKID], LIVE);
    match Netlink::open(netlink::SOCK_DIAG)?.order(SOCK_DESTROY, &nobody) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Err(_) => Ok(true),
    }
}

/// `struct inet_diag_req_v2`.
fn request(family: u8, id: &[u8; SOCKID], states: u32) -> Vec<u8> {
    let mut request = vec![family, libc::IPPROTO_TCP as u8, 0, 0];
    request.extend_from_slice(&states.to_ne_bytes());
    request.extend_from_slice(id);
    request
}

/// `struct inet_diag_msg`.
fn connection(body: &[u8]) -> Option<TcpConnection> {
    let (&family, &state) = (body.first()?, body.get(1)?);
    let id: [u8; SOCKID] = body.get(4..4 + SOCKID)?.try_into().ok()?;
    let end = |port: usize, address: usize| {
        SocketAddr::new(ip(family, &id[address..address + 16]), u16::from_be_bytes([id[port], id[port + 1]]))
    };
    Some(TcpConnection {
        local: end(0, 4),
        remote: end(2, 20),
        cookie: u64::from(word(&id, 40)?) | u64::from(word(&id, 44)?) << 32,
        inode: word(body, 4 + SOCKID + 16)?,
        established: state == 1,
        id,
        family,
    })
}

fn ip(family: u8, bytes: &[u8]) -> IpAddr {
    if i32::from(family) == libc::AF_INET {
        return IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    let mut octets = [0; 16];
    octets.copy_from_slice(bytes);
    IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
}
