//! Facts about this process: its limits, its privileges, the kernel's clock.

#![allow(unsafe_code, reason = "clock_gettime has no safe wrapper in the features of nix we use")]

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one; gives the new limit.
pub fn raise_nofile() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// A privilege that the agent uses, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// As people and manifests write it, without `CAP_`.
    pub name: &'static str,
    /// What fails without it.
    pub purpose: &'static str,
    /// Its bit in the kernel's sets.
    bit: u32,
}

/// In the kernel's eyes SYS_ADMIN includes BPF and PERFMON, and setns leaves no way around it.
const CAPABILITIES: [Capability; 3] = [
    Capability { name: "SYS_ADMIN", purpose: "enter pods' network namespaces, load the hooks", bit: 21 },
    Capability { name: "NET_ADMIN", purpose: "attach the hooks to pods, end connections", bit: 12 },
    Capability {
        name: "SYS_PTRACE",
        purpose: "find pods and the kubelet through other processes in /proc",
        bit: 19,
    },
];

/// What this process lacks of the privileges that the agent uses.
pub fn missing_capabilities() -> io::Result<Vec<Capability>> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let held = effective(&status).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "no capabilities in /proc/thread-self/status")
    })?;
    Ok(CAPABILITIES.into_iter().filter(|capability| held & (1 << capability.bit) == 0).collect())
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// The clock that `bpf_ktime_get_ns` reads: `CLOCK_MONOTONIC`, in nanoseconds.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec for the kernel to fill. The clock exists on every Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let held = effective("Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000281000\n").unwrap();
        assert!(CAPABILITIES.iter().all(|each| held & (1 << each.bit) != 0));
        assert_eq!(effective("CapEff:\tnone"), None);
    }
}
