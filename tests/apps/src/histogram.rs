//! Latencies in buckets no wider than 1.6 % of their value: a fixed size, however long a load runs.

const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;
const GROUPS: usize = 40;

/// Counts of microseconds.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    largest: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; GROUPS * SUB as usize], total: 0, largest: 0 }
    }
}

impl Histogram {
    /// Counts one value in microseconds.
    pub fn record(&mut self, micros: u64) {
        let last = self.counts.len() - 1;
        self.counts[slot(micros).min(last)] += 1;
        self.total += 1;
        self.largest = self.largest.max(micros);
    }

    /// Adds everything that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.largest = self.largest.max(other.largest);
    }

    /// The value in microseconds below which `share` (0 to 1) of the values lie; 0 without values.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.total as f64) * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (slot, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_edge(slot).min(self.largest);
            }
        }
        self.largest
    }

    /// The largest value in microseconds.
    pub fn largest(&self) -> u64 {
        self.largest
    }
}

/// Values below 64 have their own slot; above, each power of two is divided into 64.
fn slot(micros: u64) -> usize {
    if micros < SUB {
        return micros as usize;
    }
    let group = u64::from(micros.ilog2() - SUB_BITS);
    (group * SUB + (micros >> group)) as usize
}

fn upper_edge(slot: usize) -> u64 {
    let slot = slot as u64;
    if slot < 2 * SUB {
        return slot;
    }
    let group = slot / SUB - 1;
    (((slot - group * SUB) + 1) << group) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_close() {
        let mut histogram = Histogram::default();
        (1..=100_000).for_each(|micros| histogram.record(micros));
        for share in [0.01, 0.5, 0.9, 0.99, 0.999] {
            let (found, exact) = (histogram.quantile(share) as f64, share * 100_000.0);
            assert!((found - exact).abs() / exact < 0.017, "{share}: {found} for {exact}");
        }
        assert_eq!(histogram.quantile(1.0), 100_000);
        assert_eq!(Histogram::default().quantile(0.5), 0);
    }

    #[test]
    fn every_value_lies_in_its_slot() {
        for micros in (0..200).chain([1_000, 4_095, 4_096, 1_000_000, u32::MAX.into()]) {
            let edge = upper_edge(slot(micros));
            assert!(edge >= micros && edge - micros <= micros / 64 + 1, "{micros}: {edge}");
        }
    }
}
