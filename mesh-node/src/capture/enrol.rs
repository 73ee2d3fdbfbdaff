//! The blocking part of capturing one pod: its namespace, its listeners, the kernel's hooks.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    path::Path,
    sync::Arc,
};

use mesh_model::{identity::Identity, name::WorkloadUid, workload::Workload};

use super::{announced::Given, locate};
use crate::{
    bpf::{CapturedPod, Exclusions, Hooks, KernelError, PodNet},
    sys::{self, Netns, NetnsId, PodListeners, Process, pod_listeners},
    worker::Door,
};

/// What of a workload decides how it is captured: if it changes, the pod is enrolled anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The workload.
    pub uid: WorkloadUid,
    /// Who it is.
    pub identity: Identity,
    /// Where its network namespace is.
    pub home: Home,
    ips: Vec<IpAddr>,
    exclusions: Exclusions,
    probed_ports: Vec<u16>,
    fail_open: bool,
}

/// Where the network namespace of a pod is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Home {
    /// The CNI plugin handed it over, before anything ran in it.
    Given(Netns),
    /// At this path: the directory source says so.
    Path(Arc<str>),
    /// Nobody says: its processes lead there.
    Unknown,
}

/// Why a pod is not captured.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// It has no address yet.
    #[error("it awaits its network")]
    NoAddress,
    /// It runs nothing, as far as can be seen.
    #[error(
        "no process of it is found on this node (the agent needs hostPID; in the directory source the annotation tulle.dev/netns leads to it)"
    )]
    NoProcess,
    /// What it runs is elsewhere.
    #[error("none of its {processes} processes is in a network namespace that holds one of its addresses")]
    NoNetns {
        /// How many it has.
        processes: usize,
    },
    /// The namespace is not there (yet, or any more).
    #[error("its network namespace {path} cannot be opened: {error}")]
    Open {
        /// Where it should be.
        path: Arc<str>,
        /// What the kernel said.
        error: io::Error,
    },
    /// The listeners cannot be made.
    #[error("the proxy's listeners in it cannot be made: {0}")]
    Listeners(#[source] io::Error),
    /// The hooks refuse it.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl EnrolError {
    /// The way of things while a pod starts or ends: nobody needs to be warned.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::NoAddress | Self::NoProcess)
    }

    /// Refused for good, until the pod itself changes: a condition on the object rather than a failure.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Kernel(KernelError::Forwards { .. } | KernelError::WrongNetns { .. }))
    }
}

/// A pod that the kernel captures.
#[derive(Debug)]
pub struct Enrolled {
    /// Its place in the kernel's maps.
    pub captured: CapturedPod,
    /// The proxy's listeners in it.
    pub listeners: PodListeners,
    /// A neighbour on its link could answer for it.
    pub on_bridge: bool,
    /// Cookies of connections that are older than the enrolment.
    pub older: Vec<u64>,
    /// The process whose namespace it is, where the pod was found by its processes.
    pub holder: Option<Process>,
}

impl Wanted {
    /// What the snapshot wants of this workload. What the CNI plugin said of its addresses counts until the controller knows them.
    pub fn of(workload: &Workload, given: Option<Given>, fail_open: bool) -> Self {
        let (netns, given_ips) = given.map_or((None, Vec::new()), |given| (Some(given.netns), given.ips));
        let home = match (netns, &workload.netns) {
            (Some(netns), _) => Home::Given(netns),
            (None, Some(path)) => Home::Path(path.clone()),
            (None, None) => Home::Unknown,
        };
        let is_same =
            |ips: &[IpAddr]| ips.len() == given_ips.len() && ips.iter().all(|ip| given_ips.contains(ip));
        // One that another pod has in the mesh is this one's all the same, where it is captured.
        let held: Vec<IpAddr> = workload.held_ips().collect();
        let ips = if held.is_empty() || is_same(&held) { given_ips } else { held };
        Self {
            uid: workload.uid.clone(),
            identity: workload.identity.clone(),
            home,
            ips,
            exclusions: Exclusions {
                inbound_ports: workload.exclusions.inbound_ports.clone(),
                outbound_ports: workload.exclusions.outbound_ports.clone(),
                outbound_cidrs: workload.exclusions.outbound_cidrs.clone(),
            },
            probed_ports: workload.probe_ports.clone(),
            fail_open,
        }
    }

    /// Whether nobody says where it is: it is to be found by its processes, once it has an address.
    pub fn is_to_be_located(&self) -> bool {
        self.home == Home::Unknown && !self.ips.is_empty()
    }

    /// Whether it has no address yet, neither from the controller nor from the CNI plugin, and no path leads to it.
    pub fn awaits_its_network(&self) -> bool {
        self.home == Home::Unknown && self.ips.is_empty()
    }

    /// Whether the kubelet probes it over the network.
    pub fn is_probed(&self) -> bool {
        !self.probed_ports.is_empty()
    }

    /// Whether one of these addresses is its own.
    pub fn has_any_ip(&self, ips: &[IpAddr]) -> bool {
        ips.iter().any(|ip| self.ips.contains(ip))
    }

    /// Its addresses, the primary one first.
    pub fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    /// Whether it is another pod than that one, captured in `netns`: another identity, or another network namespace.
    pub fn replaces(&self, captured: &Self, netns: &Netns) -> bool {
        let moved = match &self.home {
            Home::Given(given) => given != netns,
            Home::Path(_) => self.home != captured.home,
            Home::Unknown => false,
        };
        moved || self.identity != captured.identity
    }

    /// The namespace that is there now: the one given, at its path, or else that of one of its processes.
    fn open(&self, processes: &[Process]) -> Result<(Netns, Option<Process>), EnrolError> {
        match &self.home {
            Home::Given(netns) => return Ok((netns.clone(), None)),
            Home::Path(path) => {
                let failed = |error| EnrolError::Open { path: path.clone(), error };
                return Ok((Netns::open(&**path).map_err(failed)?, None));
            }
            Home::Unknown => {}
        }
        match locate::netns_of(processes, &self.ips) {
            Some((netns, holder)) => Ok((netns, Some(holder))),
            None if processes.is_empty() => Err(EnrolError::NoProcess),
            None => Err(EnrolError::NoNetns { processes: processes.len() }),
        }
    }

    fn pod_net(&self, netns: Netns) -> PodNet {
        let v4 = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => Some(*ip),
            IpAddr::V6(_) => None,
        };
        let v6 = |ip: &IpAddr| match ip {
            IpAddr::V6(ip) => Some(*ip),
            IpAddr::V4(_) => None,
        };
        let ip4: Option<Ipv4Addr> = self.ips.iter().find_map(v4);
        let ip6: Option<Ipv6Addr> = self.ips.iter().find_map(v6);
        PodNet {
            uid: self.uid.as_str().to_owned(),
            netns,
            ip4,
            ip6,
            exclusions: self.exclusions.clone(),
            probed_ports: self.probed_ports.clone(),
            fail_open: self.fail_open,
        }
    }
}

/// Captures a pod; `processes` are its own, as far as they were looked for. Blocks for as long as the kernel verifies its hook.
pub fn enrol(hooks: &Hooks, wanted: &Wanted, processes: &[Process]) -> Result<Enrolled, EnrolError> {
    let (netns, holder) = wanted.open(processes)?;
    let listeners = pod_listeners(&netns).map_err(EnrolError::Listeners)?;
    let on_bridge = is_on_bridge(&netns);
    let captured = hooks.enroll(&wanted.pod_net(netns), &listeners)?;
    let older = captured.older().to_vec();
    Ok(Enrolled { captured, listeners, on_bridge, older, holder })
}

/// Gives a captured pod other exclusions or addresses, with the same listeners.
pub fn change(
    hooks: &Hooks,
    wanted: &Wanted,
    netns: Netns,
    listeners: &PodListeners,
) -> Result<CapturedPod, KernelError> {
    hooks.enroll(&wanted.pod_net(netns), listeners)
}

/// Routed pods hang on a veth of their own. Whatever else there is, or cannot be read, may be a shared link.
fn is_on_bridge(netns: &Netns) -> bool {
    match sys::bridge_master(netns) {
        Ok(ends) => ends.is_empty() || ends.iter().any(|end| end.bridge.is_some()),
        Err(_) => true,
    }
}

impl Home {
    /// Whether the captured namespace is still the pod's: a path must still lead to it. One that the plugin gave is over when the
    /// plugin says so.
    pub fn is_still(&self, id: NetnsId) -> bool {
        use std::os::unix::fs::MetadataExt;
        let Self::Path(path) = self else { return true };
        std::fs::metadata(Path::new(&**path)).is_ok_and(|now| now.dev() == id.dev && now.ino() == id.ino)
    }
}

/// Every listener with the door it is.
pub fn doors(listeners: &PodListeners) -> impl Iterator<Item = (Door, &TcpListener)> {
    [
        (Door::Outbound, Some(&listeners.outbound4)),
        (Door::Outbound, listeners.outbound6.as_ref()),
        (Door::Plaintext, Some(&listeners.plain4)),
        (Door::Plaintext, listeners.plain6.as_ref()),
        (Door::Hbone, Some(&listeners.hbone4)),
        (Door::Hbone, listeners.hbone6.as_ref()),
    ]
    .into_iter()
    .filter_map(|(door, listener)| listener.map(|listener| (door, listener)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mesh_model::workload::{Enrolment, Telemetry, Tunnel};

    use super::*;

    fn workload(ips: &[&str], contested_ips: &[&str]) -> Workload {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Workload {
            uid: "u-1".into(),
            name: "web".into(),
            namespace: "shop".into(),
            identity: Identity::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap(),
            node: "n1".into(),
            ips: parse(ips),
            contested_ips: parse(contested_ips),
            labels: BTreeMap::new(),
            telemetry: Telemetry::default(),
            tunnel: Tunnel::Hbone,
            enrolment: Enrolment::Yes,
            endpoints: Vec::new(),
            protocols: BTreeMap::new(),
            mtls: Default::default(),
            policies: Vec::new(),
            exclusions: Default::default(),
            probe_ports: Vec::new(),
            netns: None,
        }
    }

    #[test]
    fn who_loses_an_address_in_the_mesh_is_captured_by_it_all_the_same() {
        let before = Wanted::of(&workload(&["10.1.0.2", "fd00::2"], &[]), None, false);
        let after = Wanted::of(&workload(&[], &["10.1.0.2", "fd00::2"]), None, false);
        assert_eq!(before, after, "nothing is to be changed in the kernel");
        assert!(after.is_to_be_located() && !after.awaits_its_network());
        assert!(after.has_any_ip(&["10.1.0.2".parse().unwrap()]), "nor let go of after a restart");
    }
}
