//! Counters for people, and the sweep of what nobody took.
//!
//! Invariant: an entry that may still be used is never swept: the bounds are longer than any handshake the kernel keeps
//! alive.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use mesh_abi::{Counter, VOUCH_TTL_NS};

use super::Hooks;
use crate::sys;

/// A captured connection waits at most this long in a full accept queue: the kernel gives up a handshake after 63 s.
const UNTAKEN_NS: u64 = 180_000_000_000;

/// Counters whose growth a person should hear of.
const REFUSALS: [Counter; 8] = [
    Counter::NoListenerRefused,
    Counter::StorageRefused,
    Counter::OriginsFull,
    Counter::ClientsFull,
    Counter::VouchesFull,
    Counter::VouchRefused,
    Counter::InboundDropped,
    Counter::DeviceRefused,
];

/// Counters by name (`mesh_abi::Counter::ALL`, and `origin_miss`), each only growing while the pins live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(pub BTreeMap<&'static str, u64>);

impl Counters {
    /// The value of a counter of the kernel.
    pub fn of(&self, counter: Counter) -> u64 {
        let name = Counter::ALL.iter().find(|(each, _)| *each == counter).map(|(_, name)| *name);
        name.and_then(|name| self.0.get(name)).copied().unwrap_or(0)
    }
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Origins nobody accepted.
    pub origins: usize,
    /// Clients nobody accepted.
    pub clients: usize,
    /// Vouches nobody used.
    pub vouches: usize,
}

impl Hooks {
    /// Removes entries that are too old to be used, and logs refusals counted since the last sweep. Every few seconds.
    pub fn sweep(&self) -> Swept {
        self.log_refusals();
        self.sweep_probers();
        let now = sys::monotonic_ns();
        let old = |at_ns: u64, bound: u64| now.saturating_sub(at_ns) > bound;
        let mut swept = Swept::default();
        for key in self.maps.origins.keys().unwrap_or_default() {
            if let Ok(Some(origin)) = self.maps.origins.get(&key)
                && old(origin.at_ns, UNTAKEN_NS)
            {
                swept.origins += usize::from(self.maps.origins.remove(&key).unwrap_or(false));
            }
        }
        for key in self.maps.clients.keys().unwrap_or_default() {
            if let Ok(Some(client)) = self.maps.clients.get(&key)
                && old(client.at_ns, UNTAKEN_NS)
            {
                swept.clients += usize::from(self.maps.clients.remove(&key).unwrap_or(false));
            }
        }
        for tuple in self.maps.vouches.keys().unwrap_or_default() {
            if let Ok(Some(vouch)) = self.maps.vouches.get(&tuple)
                && old(vouch.at_ns, VOUCH_TTL_NS)
            {
                swept.vouches += usize::from(self.maps.vouches.remove(&tuple).unwrap_or(false));
            }
        }
        swept
    }

    /// All counters.
    pub fn counters(&self) -> Counters {
        let value = |counter: Counter| {
            self.maps.counters.get_per_cpu(counter as u32).unwrap_or_default().iter().sum()
        };
        let mut counters: BTreeMap<_, u64> =
            Counter::ALL.iter().map(|(counter, name)| (*name, value(*counter))).collect();
        counters.insert("origin_miss", self.origin_miss.load(Ordering::Relaxed));
        Counters(counters)
    }

    fn log_refusals(&self) {
        let now = self.counters();
        let mut logged = self.logged.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // The first look is at what earlier lives counted, too: not news.
        if !logged.0.is_empty() {
            for counter in REFUSALS {
                let more = now.of(counter).saturating_sub(logged.of(counter));
                if more > 0 {
                    tracing::warn!(?counter, more, "the kernel side refused");
                }
            }
        }
        *logged = now;
    }
}
