//! Counters for people, and the sweep of what nobody took.

use std::collections::BTreeMap;

use super::Hooks;

/// Counters by name (`mesh_abi::Counter::ALL`, and `origin_miss`), each only growing while the pins live.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(pub BTreeMap<&'static str, u64>);

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
        Swept::default()
    }

    /// All counters.
    pub fn counters(&self) -> Counters {
        Counters::default()
    }
}
