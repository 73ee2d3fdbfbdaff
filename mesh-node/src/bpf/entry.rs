//! What is asked of a pod's netns before its entry in `PODS` is written, and the entry itself.
//!
//! Invariant: a netns is the pod's only if it holds one of its addresses; the path it was found by proves nothing.

use std::fs;
use std::io;
use std::net::{IpAddr, TcpListener};

use mesh_abi::{Addr, PodEntry, flag};

use super::{KernelError, PodNet};
use crate::sys::{self, Netns, PodListeners};

/// Lets a closed connection's port be used again after a second: dials of the proxy leave the pod over its veth, where
/// the default (loopback only) would end at 470 connections a second.
const TW_REUSE: &str = "/proc/sys/net/ipv4/tcp_tw_reuse";

/// Is this netns the pod's, and one that may be captured? Gives the addresses it holds beyond the pod's own two.
pub(super) fn accept_netns(pod: &PodNet) -> Result<Vec<IpAddr>, KernelError> {
    let uid = || pod.uid.clone();
    let failed = |what| move |error| KernelError::Netns { uid: pod.uid.clone(), what, error };
    if pod.netns.is_host().map_err(failed("compare with the host"))? {
        return Err(KernelError::WrongNetns { uid: uid(), reason: "it is the host's own".into() });
    }
    let held = sys::local_addresses(&pod.netns).map_err(failed("read addresses"))?;
    if !pod.ips().any(|ip| held.contains(&ip)) {
        let reason = format!("it holds {held:?}, none of which is the pod's");
        return Err(KernelError::WrongNetns { uid: uid(), reason });
    }
    if let Some(reason) = sys::forwards(&pod.netns).map_err(failed("look for forwarding"))? {
        return Err(KernelError::Forwards { uid: uid(), reason });
    }
    Ok(held.into_iter().filter(|ip| !pod.ips().any(|own| own == *ip)).collect())
}

pub(super) fn entry(
    pod: &PodNet,
    listeners: &PodListeners,
    slot: u32,
    before: Option<&PodEntry>,
) -> Result<PodEntry, KernelError> {
    let failed = |what| move |error| KernelError::Netns { uid: pod.uid.clone(), what, error };
    let routes = sys::routes(&pod.netns).map_err(failed("read routes"))?;
    let port = |listener: Option<&TcpListener>| -> io::Result<u16> {
        listener.map_or(Ok(0), |listener| Ok(listener.local_addr()?.port()))
    };
    let ports = failed("read the listeners' ports");
    let mut entry = PodEntry {
        ip4: pod.ip4.map_or(Addr::NONE, Addr::from),
        ip6: pod.ip6.map_or(Addr::NONE, Addr::from),
        outbound4: port(Some(&listeners.outbound4)).map_err(&ports)?,
        outbound6: port(listeners.outbound6.as_ref()).map_err(&ports)?,
        plain4: port(Some(&listeners.plain4)).map_err(&ports)?,
        plain6: port(listeners.plain6.as_ref()).map_err(&ports)?,
        hbone4: port(Some(&listeners.hbone4)).map_err(&ports)?,
        hbone6: port(listeners.hbone6.as_ref()).map_err(&ports)?,
        flags: 0,
        tw_reuse_before: 0,
        slot,
        generation: before.map_or(0, |before| before.generation + 1),
        ifindex: sys::device_of(&pod.netns, pod.ips()).map_err(failed("find the pod's device"))?,
        reserved: 0,
        enrolled_ns: before.map_or_else(sys::monotonic_ns, |before| before.enrolled_ns),
    };
    let flags = [(routes.v4, flag::ROUTE4), (routes.v6, flag::ROUTE6), (pod.fail_open, flag::FAIL_OPEN)];
    entry.flags = flags.iter().filter(|(set, _)| *set).fold(0, |flags, (_, bit)| flags | bit);
    entry.tw_reuse_before = match before {
        Some(before) => before.tw_reuse_before,
        None => pod.netns.enter(reuse_time_wait).flatten().map_err(failed("set net.ipv4.tcp_tw_reuse"))?,
    };
    Ok(entry)
}

/// Sets the sysctl of this thread's netns; gives what it was.
fn reuse_time_wait() -> io::Result<u16> {
    let before = fs::read_to_string(TW_REUSE)?;
    fs::write(TW_REUSE, "1")?;
    before.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, before))
}

/// Puts the sysctl back.
pub(super) fn restore_time_wait(netns: &Netns, before: u16) -> io::Result<()> {
    netns.enter(|| fs::write(TW_REUSE, before.to_string())).flatten()
}
