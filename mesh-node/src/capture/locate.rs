//! Finds running pods that nobody led us to: through their processes in `/proc`.
//!
//! Invariants: one look at the processes serves every pod that is looked for, and looks keep their distance, however many pods and
//! processes there are; a namespace is taken for a pod's only if it is not the node's and holds one of the pod's addresses.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use mesh_model::name::WorkloadUid;

use crate::sys::{self, Netns, NetnsId, Process};

/// Between two looks at all processes.
const DISTANCE: Duration = Duration::from_millis(200);

/// A look that took long is not repeated before this many times as long have passed: at most a tenth of one core.
const SHARE: u32 = 9;

/// Looks at processes, not too often.
#[derive(Debug)]
pub struct Locator {
    due: Instant,
}

/// What one look found: the processes of the pods that were asked for, the oldest first.
#[derive(Debug, Default)]
pub struct Sighting {
    asked: HashSet<WorkloadUid>,
    processes: HashMap<String, Vec<Process>>,
}

impl Locator {
    /// One that may look at once.
    pub fn new() -> Self {
        Self { due: Instant::now() }
    }

    /// Looks for these pods, if there are any and the last look was long enough ago.
    pub async fn look(&mut self, pods: HashSet<WorkloadUid>) -> Sighting {
        let started = Instant::now();
        if pods.is_empty() || started < self.due {
            return Sighting::default();
        }
        let look = move || {
            let uids = pods.iter().map(WorkloadUid::as_str).collect();
            sys::processes_of(&uids).map(|processes| Sighting { asked: pods, processes })
        };
        let seen = tokio::task::spawn_blocking(look).await;
        self.due = Instant::now() + DISTANCE.max(started.elapsed() * SHARE);
        match seen {
            Ok(Ok(sighting)) => sighting,
            Ok(Err(error)) => {
                tracing::warn!(%error, "processes cannot be looked at: running pods are not found");
                Sighting::default()
            }
            Err(error) => {
                tracing::error!(%error, "looking at processes broke");
                Sighting::default()
            }
        }
    }
}

impl Sighting {
    /// Whether the pod was looked for.
    pub fn includes(&self, pod: &WorkloadUid) -> bool {
        self.asked.contains(pod)
    }

    /// The processes of a pod, the oldest first.
    pub fn processes(&self, pod: &WorkloadUid) -> &[Process] {
        self.processes.get(pod.as_str()).map_or(&[], Vec::as_slice)
    }

    /// The oldest process of a pod that is in this namespace.
    pub fn holder(&self, pod: &WorkloadUid, netns: NetnsId) -> Option<Process> {
        let is_inside = |process: &&Process| process.netns_id().is_ok_and(|id| id == netns);
        self.processes(pod).iter().find(is_inside).copied()
    }
}

/// The namespace of the oldest of these processes that has one of its own with one of these addresses, and that process: the
/// namespace is the pod's for as long as it lives. Blocks.
///
/// Older than a pod's first container may be its runtime's monitor, which is in the node's namespace.
pub fn netns_of(processes: &[Process], ips: &[IpAddr]) -> Option<(Netns, Process)> {
    let mut refused = HashSet::new();
    processes.iter().find_map(|process| {
        let id = process.netns_id().ok()?;
        if refused.contains(&id) {
            return None;
        }
        let netns = process.open_netns().ok().filter(|netns| netns.id() == id && is_pods(netns, ips));
        if netns.is_none() {
            refused.insert(id);
        }
        netns.map(|netns| (netns, *process))
    })
}

fn is_pods(netns: &Netns, ips: &[IpAddr]) -> bool {
    let is_host = netns.is_host().unwrap_or(true);
    !is_host && sys::local_addresses(netns).is_ok_and(|held| held.iter().any(|ip| ips.contains(ip)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn looks_keep_their_distance_and_need_a_reason() {
        let pod = WorkloadUid::new("2c48913c-b29f-11e7-9350-020968147796");
        let mut locator = Locator::new();
        assert!(!locator.look(HashSet::new()).await.includes(&pod));
        let first = locator.look(HashSet::from([pod.clone()])).await;
        assert!(first.includes(&pod) && first.processes(&pod).is_empty());
        assert!(!locator.look(HashSet::from([pod.clone()])).await.includes(&pod));
        tokio::time::sleep_until(locator.due.into()).await;
        assert!(locator.look(HashSet::from([pod.clone()])).await.includes(&pod));
    }

    #[test]
    fn the_nodes_own_namespace_is_no_pods_whatever_addresses_are_asked_for() {
        let me = Process::of(std::process::id()).unwrap();
        let own = nix::ifaddrs::getifaddrs().unwrap().filter_map(|each| {
            let address = each.address?;
            Some(IpAddr::V4(address.as_sockaddr_in()?.ip()))
        });
        let own: Vec<IpAddr> = own.collect();
        assert!(netns_of(&[me], &own).is_none());
    }
}
