//! What the machine spent: CPU time of everything, resident memory of some processes.

use std::fs;

use anyhow::{Context, Result};

/// `USER_HZ`, fixed on Linux for what /proc shows.
const TICKS_PER_SECOND: f64 = 100.0;

/// The machine's CPU time from one moment on.
#[derive(Debug)]
pub struct CpuClock {
    begun: u64,
}

impl CpuClock {
    /// Starts counting.
    pub fn start() -> Result<Self> {
        Ok(Self { begun: busy_ticks()? })
    }

    /// Seconds that all cores together were not idle.
    pub fn busy_seconds(&self) -> Result<f64> {
        Ok(busy_ticks()?.saturating_sub(self.begun) as f64 / TICKS_PER_SECOND)
    }
}

/// user, nice, system, irq, softirq and steal of the first line of /proc/stat; idle and iowait are the rest.
fn busy_ticks() -> Result<u64> {
    let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let numbers: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    Ok([0, 1, 2, 5, 6, 7].iter().filter_map(|column| numbers.get(*column)).sum())
}

/// Resident memory of a process, in MiB.
pub fn resident_mib(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let kib: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("process {pid} has no VmRSS"))?;
    Ok(kib / 1024.0)
}
