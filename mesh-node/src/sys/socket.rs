//! Sockets made inside a pod's netns: the proxy's listeners there, and its dials from there.
//!
//! Invariant: listeners are bound to loopback on high ports without SO_REUSEPORT (a process of the pod with our uid
//! could join the group); everything is non-blocking and close-on-exec.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::Netns;

/// As long as the kernel allows (`net.core.somaxconn` cuts it): a burst must not be lost in a short queue.
const BACKLOG: i32 = 4096;

/// Above the kernel's own range for outgoing connections (32768–60999), in which gRPC's 50051 and others live.
const HIGH_PORTS: RangeInclusive<u16> = 61_000..=65_535;
const HIGH_TRIES: usize = 32;

/// The proxy's listeners in one pod. The IPv6 ones are missing where the pod has IPv6 disabled on `lo`.
#[derive(Debug)]
pub struct PodListeners {
    /// Captured IPv4 connects arrive here (`127.0.0.1`); ask `Hooks::take_origin`.
    pub outbound4: TcpListener,
    /// Captured IPv6 connects arrive here (`::1`).
    pub outbound6: Option<TcpListener>,
    /// Inbound plaintext to any port; `local_addr` of an accepted socket is the original destination.
    pub plain4: TcpListener,
    /// The same for IPv6.
    pub plain6: Option<TcpListener>,
    /// Inbound connections to port 15008.
    pub hbone4: TcpListener,
    /// The same for IPv6.
    pub hbone6: Option<TcpListener>,
}

/// Makes the listeners of a pod.
pub fn pod_listeners(netns: &Netns) -> io::Result<PodListeners> {
    netns.enter(|| {
        let v4 = || listen_high(Ipv4Addr::LOCALHOST.into());
        let v6 = || listen_if_possible(Ipv6Addr::LOCALHOST.into());
        Ok(PodListeners {
            outbound4: v4()?,
            outbound6: v6()?,
            plain4: v4()?,
            plain6: v6()?,
            hbone4: v4()?,
            hbone6: v6()?,
        })
    })?
}

/// A listener, or `None` if the netns has no such address.
fn listen_if_possible(ip: IpAddr) -> io::Result<Option<TcpListener>> {
    match listen_high(ip) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A listener on a port that applications rarely take for themselves: theirs would be refused the port, on any address.
fn listen_high(ip: IpAddr) -> io::Result<TcpListener> {
    for _ in 0..HIGH_TRIES {
        let port = HIGH_PORTS.start() + (rand::random::<u16>() % (HIGH_PORTS.end() - HIGH_PORTS.start() + 1));
        match listen(SocketAddr::new(ip, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            result => return result,
        }
    }
    listen(SocketAddr::new(ip, 0))
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    // What is accepted here has the *application's* port as its own and inherits this. Without it, an application that starts
    // again while the proxy holds a connection to its port would be refused the port (EADDRINUSE).
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What a dial of the proxy asks of its socket.
#[derive(Clone, Copy, Debug)]
pub struct DialOptions {
    /// TCP keepalive: idle, interval, probes.
    pub keepalive: Option<(Duration, Duration, u32)>,
    /// `TCP_USER_TIMEOUT`: give up on unacknowledged data after this long.
    pub user_timeout: Option<Duration>,
    /// `SO_BINDTODEVICE` by index, where the captured client was bound to a device.
    pub ifindex: Option<u32>,
}

impl Default for DialOptions {
    fn default() -> Self {
        let three_minutes = Duration::from_secs(180);
        DialOptions { keepalive: Some((three_minutes, three_minutes, 9)), user_timeout: None, ifindex: None }
    }
}

/// A non-blocking, unconnected socket inside `netns` for a dial to `to`, bound to `from` if given (port 0 = chosen by
/// the kernel at connect, per destination; `::1` only towards `::1`, see below). Say what it is for (`Hooks::mark_own`),
/// then connect.
pub fn dial_socket(
    netns: &Netns,
    to: SocketAddr,
    from: Option<SocketAddr>,
    options: &DialOptions,
) -> io::Result<Socket> {
    let socket =
        netns.enter(|| Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)))??;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some((idle, interval, probes)) = options.keepalive {
        let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    socket.set_tcp_user_timeout(options.user_timeout)?;
    if let Some(index) = options.ifindex.and_then(std::num::NonZeroU32::new) {
        socket.bind_device_by_index_v4(Some(index))?;
    }
    if let Some(from) = from.filter(|from| !is_lossy(from, to)) {
        // Without this a bind reserves a port for all destinations, and the pod runs out of them.
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(&from.into())?;
    }
    Ok(socket)
}

/// Between `::1` and another address of the netns the kernel loses packets: it takes `::1` for link-local, and sends the
/// answers of a TIME_WAIT and its RSTs out by the device that holds the other address. Unbound, such a dial has the same
/// address on both ends, which works.
fn is_lossy(from: &SocketAddr, to: SocketAddr) -> bool {
    from.is_ipv6() && from.ip().is_loopback() && !to.ip().is_loopback()
}
