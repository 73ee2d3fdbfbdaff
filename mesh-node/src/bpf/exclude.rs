//! What stays outside capture: a pod's excluded ports and prefixes, and the probes of the node's kubelet.
//!
//! Invariant: exclusions are added before the pod's entry says to look for them, and removed after it says otherwise.

use std::collections::HashSet;
use std::net::IpAddr;

use mesh_abi::{CidrKey, PortKey, flag, map, port};

use super::enroll::{full_or_failed, map_failed};
use super::{Hooks, KernelError, PodNet};
use crate::sys::Process;

/// Bound of `PROBERS`: a node has one kubelet.
const PROBERS: u32 = 16;

/// The keys of a pod's exclusions.
#[derive(Debug)]
pub(super) struct Excluded {
    pub ports: HashSet<PortKey>,
    pub cidrs: HashSet<CidrKey>,
}

impl Excluded {
    /// What the pod asks for; and the further addresses of its netns: a pod that calls itself by any of its names is not
    /// captured.
    pub fn of(pod: &PodNet, further: &[IpAddr]) -> Excluded {
        let cookie = pod.netns.cookie();
        let port = |what| move |port: &u16| PortKey { cookie, port: *port, what, reserved: 0 };
        let inbound = pod.exclusions.inbound_ports.iter().map(port(port::INBOUND));
        let outbound = pod.exclusions.outbound_ports.iter().map(port(port::OUTBOUND));
        let probed = pod.probed_ports.iter().map(port(port::PROBED));
        let asked = pod.exclusions.outbound_cidrs.iter().map(|net| (net.network(), net.prefix_len()));
        let own = further.iter().map(|ip| (*ip, if ip.is_ipv4() { 32 } else { 128 }));
        let cidr = |(ip, prefix): (IpAddr, u8)| CidrKey {
            prefix_len: 64 + if ip.is_ipv4() { 96 } else { 0 } + u32::from(prefix),
            cookie: cookie.to_ne_bytes(),
            addr: ip.into(),
        };
        Excluded {
            ports: inbound.chain(outbound).chain(probed).collect(),
            cidrs: asked.chain(own).map(cidr).collect(),
        }
    }

    /// Which maps are worth a look.
    pub fn flags(&self) -> u16 {
        let ports = if self.ports.is_empty() { 0 } else { flag::PORTS };
        ports | if self.cidrs.is_empty() { 0 } else { flag::CIDRS }
    }
}

impl Hooks {
    pub(super) fn put_exclusions(&self, excluded: &Excluded) -> Result<(), KernelError> {
        for key in &excluded.ports {
            self.maps.ports.set(key, &1).map_err(full_or_failed(map::PORTS, self.sizes.ports))?;
        }
        for key in &excluded.cidrs {
            self.maps.cidrs.set(key, &1).map_err(full_or_failed(map::CIDRS, self.sizes.cidrs))?;
        }
        Ok(())
    }

    /// Removes the exclusions of a pod that are not to be kept.
    pub(super) fn remove_exclusions(&self, cookie: u64, ports: &HashSet<PortKey>, cidrs: &HashSet<CidrKey>) {
        for key in self.maps.ports.keys().unwrap_or_default() {
            if key.cookie == cookie && !ports.contains(&key) {
                let _ = self.maps.ports.remove(&key);
            }
        }
        for key in self.maps.cidrs.keys().unwrap_or_default() {
            if key.cookie == cookie.to_ne_bytes() && !cidrs.contains(&key) {
                let _ = self.maps.cidrs.remove(&key);
            }
        }
    }

    /// Names the processes (the kubelet) whose connections, made outside any pod, are probes. They are known by pid and
    /// start time: `sweep` drops one that ended, so that its pid means nothing to whoever gets it next.
    pub fn set_probers(&self, processes: &[Process]) -> Result<(), KernelError> {
        for Process { pid, started } in processes {
            self.maps.probers.set(pid, started).map_err(full_or_failed(map::PROBERS, PROBERS))?;
        }
        for pid in self.maps.probers.keys().map_err(map_failed(map::PROBERS))? {
            if !processes.iter().any(|process| process.pid == pid) {
                self.maps.probers.remove(&pid).map_err(map_failed(map::PROBERS))?;
            }
        }
        Ok(())
    }

    /// Drops probers that are no longer the process they were.
    pub(super) fn sweep_probers(&self) {
        for pid in self.maps.probers.keys().unwrap_or_default() {
            let named = self.maps.probers.get(&pid).ok().flatten();
            if !named.is_some_and(|started| Process { pid, started }.is_alive()) {
                let _ = self.maps.probers.remove(&pid);
            }
        }
    }
}
