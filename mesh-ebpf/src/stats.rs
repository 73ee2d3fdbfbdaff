//! Counting: per CPU, so that no two cores share a line.
//!
//! Invariant: a counter never decides anything; failing to count changes no verdict.

use mesh_abi::{Counter, PodTraffic};

use crate::maps::{COUNTERS, TRAFFIC};

/// Counts one event.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the kernel gave a valid pointer to this CPU's value, and the program is not preempted by itself.
        unsafe { *value += 1 };
    }
}

/// Adds a closed connection to its pod's sums.
#[inline(always)]
pub fn add_traffic(slot: u32, closed: &PodTraffic) {
    if let Some(sum) = TRAFFIC.get_ptr_mut(slot) {
        // SAFETY: as above.
        let sum = unsafe { &mut *sum };
        sum.connections += closed.connections;
        sum.received += closed.received;
        sum.sent += closed.sent;
        sum.retransmits += closed.retransmits;
        sum.rtt_us += closed.rtt_us;
    }
}
