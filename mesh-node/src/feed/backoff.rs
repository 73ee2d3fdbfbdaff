//! Pauses between attempts: doubling, jittered, bounded.

use std::time::Duration;

/// Doubles from the first pause to the last.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, next: first }
    }

    /// The next pause, between half of and the whole step, so that nodes do not come back in step.
    pub(super) fn next(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.last);
        step.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    /// Begins again from the first pause.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }
}
