//! Enrolment of one pod, its end, and the pods a previous life left enrolled.
//!
//! Invariant: the entry in `PODS` is the switch. Before it is written everything it leads to is in place; after it is
//! removed nothing leads to what is taken away. A failed enrolment leaves no trace; a repeated one changes nothing twice.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use aya::programs::SkLookup;
use aya::programs::links::FdLink;
use mesh_abi::{PodEntry, PodTraffic, kind, map, program};

use super::entry::{accept_netns, entry, restore_time_wait};
use super::exclude::Excluded;
use super::hooks::{full_text, load_program};
use super::{Hooks, KernelError, PodNet, pins, raw};
use crate::sys::{self, Netns, PodListeners};

/// `BPF_LINK_TYPE_NETNS`.
const LINK_NETNS: u32 = 5;

/// An enrolled pod. Dropping it un-enrols nothing (a crash must fail closed): say `Hooks::unenroll`.
#[derive(Clone, Debug)]
pub struct CapturedPod {
    uid: String,
    netns: Netns,
    slot: u32,
    older: Vec<u64>,
}

impl CapturedPod {
    /// Socket cookies of the connections that left or entered the pod in the moment before capture began: they go on
    /// uncaptured. (`sys::connections` shows them, `sys::destroy_established` ends them.)
    pub fn older(&self) -> &[u64] {
        &self.older
    }

    /// The workload's UID.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The pod's netns.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Cookie of the pod's netns: what `take_origin` and `OwnKind::Vouch` ask for.
    pub fn cookie(&self) -> u64 {
        self.netns.cookie()
    }
}

/// A pod found enrolled by a previous life of this agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Cookie of its netns.
    pub cookie: u64,
    /// The addresses it was enrolled with.
    pub ips: Vec<IpAddr>,
}

impl Hooks {
    /// Captures a pod: listeners → sk_lookup → entry in `PODS`. Idempotent: the same netns enrolled again (also by a new
    /// agent after a crash) keeps its hook and gets the new listeners and exclusions in one step.
    ///
    /// Refuses a netns that is the host's, holds none of the pod's addresses, or forwards for others.
    pub fn enroll(&self, pod: &PodNet, listeners: &PodListeners) -> Result<CapturedPod, KernelError> {
        let further = accept_netns(pod)?;
        let cookie = pod.netns.cookie();
        let before = self.maps.pods.get(&cookie).map_err(map_failed(map::PODS))?;
        let slot = self
            .registry()
            .slot_of(cookie, self.sizes.pods)
            .ok_or(KernelError::Full { map: map::PODS, max: self.sizes.pods })?;
        let done = self.program(pod, listeners, slot, before.as_ref(), &further);
        let older = match done {
            Ok(older) => older,
            Err(error) => {
                if before.is_none() {
                    // What was there before a failed repetition stays in force; a new pod leaves no trace.
                    let _ = self.end(cookie, Some(&pod.netns));
                }
                return Err(error);
            }
        };
        self.registry().enrolled.insert(cookie);
        Ok(CapturedPod { uid: pod.uid.clone(), netns: pod.netns.clone(), slot, older })
    }

    /// Puts everything in place, then throws the switch; gives the connections that were there a moment before.
    fn program(
        &self,
        pod: &PodNet,
        listeners: &PodListeners,
        slot: u32,
        before: Option<&PodEntry>,
        further: &[IpAddr],
    ) -> Result<Vec<u64>, KernelError> {
        let cookie = pod.netns.cookie();
        let mut entry = entry(pod, listeners, slot, before)?;
        let excluded = Excluded::of(pod, further);
        entry.flags |= excluded.flags();
        self.put_exclusions(&excluded)?;
        if before.is_none() {
            let zero = PodTraffic::default();
            self.maps.traffic.set_per_cpu(slot, &zero).map_err(map_failed(map::TRAFFIC))?;
        }
        self.put_listeners(slot, listeners)?;
        self.attach_pod(pod)?;
        let older = sys::connections(&pod.netns).unwrap_or_else(|error| {
            tracing::warn!(pod = pod.uid, %error, "connections older than the enrolment cannot be counted");
            Vec::new()
        });
        self.maps.pods.set(&cookie, &entry).map_err(full_or_failed(map::PODS, self.sizes.pods))?;
        self.remove_exclusions(cookie, &excluded.ports, &excluded.cidrs);
        Ok(older.into_iter().filter(|each| !each.is_loopback()).map(|each| each.cookie).collect())
    }

    /// Ends capture: entry in `PODS` → sk_lookup → listeners → sysctl. Captured connections that wait to be accepted still can be.
    pub fn unenroll(&self, pod: &CapturedPod) -> Result<(), KernelError> {
        self.end(pod.cookie(), Some(&pod.netns))
    }

    /// Un-enrols a pod by its cookie alone: one that is no longer wanted after a restart, or whose netns is gone. With the
    /// netns, its sysctl is restored as well.
    pub fn forget(&self, cookie: u64, netns: Option<&Netns>) -> Result<(), KernelError> {
        self.end(cookie, netns)
    }

    /// Pods a previous life left enrolled and this one has not enrolled again. They are refused until they are.
    pub fn adopted(&self) -> Vec<Adopted> {
        let registry = self.registry();
        let left = registry.slots.keys().filter(|cookie| !registry.enrolled.contains(cookie));
        left.filter_map(|cookie| {
            let entry = self.maps.pods.get(cookie).ok()??;
            let ips =
                [entry.ip4, entry.ip6].into_iter().filter(|ip| !ip.is_zero()).map(IpAddr::from).collect();
            Some(Adopted { cookie: *cookie, ips })
        })
        .collect()
    }

    /// Whether the namespace of a pod that a previous life enrolled is still there. If it cannot be told, it is.
    pub fn is_netns_there(&self, cookie: u64) -> bool {
        let link = raw::open_pin(&self.pins.pod(cookie)).and_then(|link| raw::link_shape(link.as_fd()));
        !matches!(link, Ok(link) if link.kind == LINK_NETNS && link.target == 0)
    }

    /// Kernel's sums over the closed connections of a pod that left or entered it.
    pub fn traffic(&self, pod: &CapturedPod) -> PodTraffic {
        let each = self.maps.traffic.get_per_cpu(pod.slot).unwrap_or_default();
        each.into_iter().fold(PodTraffic::default(), |sum, cpu| PodTraffic {
            connections: sum.connections + cpu.connections,
            received: sum.received + cpu.received,
            sent: sum.sent + cpu.sent,
            retransmits: sum.retransmits + cpu.retransmits,
            rtt_us: sum.rtt_us + cpu.rtt_us,
        })
    }

    /// Forgets pods of a previous life whose netns is gone: the kernel has cut their hook off already.
    pub(super) fn collect_gone(&self) {
        for cookie in self.pins.pod_cookies() {
            if !self.is_netns_there(cookie)
                && let Err(error) = self.end(cookie, None)
            {
                tracing::warn!(cookie, %error, "the pins of a pod that is gone cannot be removed");
            }
        }
    }

    /// Without its netns the pod is no more, and nor is what its connections left. With it, connections that were captured may
    /// still wait to be accepted by listeners that drain: what they need is left to the sweep.
    fn end(&self, cookie: u64, netns: Option<&Netns>) -> Result<(), KernelError> {
        let entry = self.maps.pods.take(&cookie).map_err(map_failed(map::PODS))?;
        let pin = self.pins.pod(cookie);
        pins::remove_link(&pin).map_err(|error| KernelError::Pin { path: pin, error })?;
        let slot = self.registry().slots.get(&cookie).copied();
        if let Some(slot) = slot {
            for which in 0..kind::COUNT {
                self.maps.sockets.remove(&(slot * kind::COUNT + which)).map_err(map_failed(map::SOCKETS))?;
            }
        }
        self.remove_exclusions(cookie, &HashSet::new(), &HashSet::new());
        if netns.is_none() {
            self.remove_traces(cookie);
        }
        if let (Some(entry), Some(netns)) = (entry, netns)
            && let Err(error) = restore_time_wait(netns, entry.tw_reuse_before)
        {
            tracing::warn!(cookie, %error, "net.ipv4.tcp_tw_reuse of a pod is not restored");
        }
        let mut registry = self.registry();
        registry.slots.remove(&cookie);
        registry.enrolled.remove(&cookie);
        Ok(())
    }

    fn put_listeners(&self, slot: u32, listeners: &PodListeners) -> Result<(), KernelError> {
        let each = [
            (kind::PLAIN4, Some(&listeners.plain4)),
            (kind::PLAIN6, listeners.plain6.as_ref()),
            (kind::HBONE4, Some(&listeners.hbone4)),
            (kind::HBONE6, listeners.hbone6.as_ref()),
            (kind::OUTBOUND4, Some(&listeners.outbound4)),
            (kind::OUTBOUND6, listeners.outbound6.as_ref()),
        ];
        for (which, listener) in each {
            let index = slot * kind::COUNT + which;
            match listener {
                Some(listener) => self.maps.sockets.set(&index, &(listener.as_raw_fd() as u32)),
                None => self.maps.sockets.remove(&index).map(drop),
            }
            .map_err(map_failed(map::SOCKETS))?;
        }
        Ok(())
    }

    /// Attaches the pod's own instance of the hook, unless a previous life's is in force.
    fn attach_pod(&self, pod: &PodNet) -> Result<(), KernelError> {
        let pin = self.pins.pod(pod.netns.cookie());
        let link = raw::open_pin(&pin).and_then(|link| raw::link_shape(link.as_fd()));
        if link.is_ok_and(|link| {
            link.kind == LINK_NETNS && link.prog_id != 0 && u64::from(link.target) == pod.netns.id().ino
        }) {
            return Ok(());
        }
        pins::remove_link(&pin).map_err(|error| KernelError::Pin { path: pin.clone(), error })?;
        let mut ebpf = self.load_for(pod.netns.cookie())?;
        load_program(&mut ebpf, program::ACCEPT, "sk_lookup")?;
        let missing = KernelError::Missing(program::ACCEPT);
        let Some(program) = ebpf.program_mut(program::ACCEPT) else { return Err(missing) };
        let program: &mut SkLookup = program.try_into().map_err(|_| missing)?;
        let link = program.attach(&pod.netns).and_then(|id| program.take_link(id)).map_err(|error| {
            KernelError::Attach {
                hook: "sk_lookup",
                target: format!("pod {}", pod.uid),
                error: full_text(&error),
            }
        })?;
        let link: FdLink = link.into();
        link.pin(&pin)
            .map(drop)
            .map_err(|error| KernelError::Pin { path: pin, error: io::Error::other(error) })
    }

    /// Removes what connections of a pod left behind.
    fn remove_traces(&self, cookie: u64) {
        for key in self.maps.origins.keys().unwrap_or_default() {
            if key.cookie == cookie {
                let _ = self.maps.origins.remove(&key);
            }
        }
        for key in self.maps.clients.keys().unwrap_or_default() {
            if key.cookie == cookie {
                let _ = self.maps.clients.remove(&key);
            }
        }
        for tuple in self.maps.vouches.keys().unwrap_or_default() {
            if let Ok(Some(vouch)) = self.maps.vouches.get(&tuple)
                && (vouch.source_cookie == cookie || vouch.dest_cookie == cookie)
            {
                let _ = self.maps.vouches.remove(&tuple);
            }
        }
    }
}

pub(super) fn map_failed(map: &'static str) -> impl Fn(io::Error) -> KernelError {
    move |error| KernelError::Map { map, error }
}

/// The kernel says E2BIG (hash) or ENOSPC (trie) when a map is full.
pub(super) fn full_or_failed(map: &'static str, max: u32) -> impl Fn(io::Error) -> KernelError {
    move |error| match error.raw_os_error() {
        Some(libc::E2BIG | libc::ENOSPC) => KernelError::Full { map, max },
        _ => KernelError::Map { map, error },
    }
}
