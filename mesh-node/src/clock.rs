//! Wall-clock time as a value that is passed in, so that tests can move it.
//!
//! Invariant: nothing in this crate that judges a certificate or a grant reads the system's clock but through a [`Clock`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The system's clock plus an offset (zero outside tests).
#[derive(Clone, Debug, Default)]
pub struct Clock {
    offset_seconds: Arc<AtomicI64>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// Moves this clock and its clones by so many seconds, backwards if negative.
    pub fn shift(&self, seconds: i64) {
        self.offset_seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Now.
    pub fn now(&self) -> SystemTime {
        let offset = self.offset_seconds.load(Ordering::Relaxed);
        let shift = Duration::from_secs(offset.unsigned_abs());
        let now = SystemTime::now();
        if offset < 0 { now - shift } else { now + shift }
    }

    /// Seconds since the epoch; 0 before it.
    pub fn unix_seconds(&self) -> i64 {
        self.now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_move_together_both_ways() {
        let clock = Clock::system();
        let clone = clock.clone();
        let before = clock.unix_seconds();
        clone.shift(3600);
        assert!((3600..3610).contains(&(clock.unix_seconds() - before)));
        clock.shift(-7200);
        assert!(clone.unix_seconds() < before);
    }
}
