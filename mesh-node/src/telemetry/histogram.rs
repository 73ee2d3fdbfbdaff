//! A histogram with Envoy's default buckets that is written without a lock.
//!
//! Source: Envoy's default histogram buckets, which Istio's standard metrics use for milliseconds and bytes alike.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds; `+Inf` follows.
pub(super) const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Observes whole numbers; `SCALE` of them make one of the histogram's unit (1000 for microseconds in milliseconds).
#[derive(Debug, Default)]
pub(super) struct Histogram<const SCALE: u64> {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum: AtomicU64,
}

/// A histogram as it is read.
pub(super) struct Reading {
    pub(super) sum: f64,
    pub(super) count: u64,
    /// Upper bound and the observations in that bucket alone.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl<const SCALE: u64> Histogram<SCALE> {
    pub(super) fn observe(&self, value: u64) {
        let scaled = value as f64 / SCALE as f64;
        let bucket = BOUNDS.partition_point(|bound| *bound < scaled);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Reading {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let bounds = BOUNDS.iter().copied().chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        Reading {
            sum: self.sum.load(Ordering::Relaxed) as f64 / SCALE as f64,
            count: buckets.iter().map(|(_, count)| count).sum(),
            buckets,
        }
    }
}
