//! Waiting for what nobody acknowledges.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks until the answer is `Some`, or fails with `what` after `deadline`. For kernel state and the end of processes only:
/// configuration is awaited with `World::settle`.
pub fn eventually<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if begun.elapsed() >= deadline {
            bail!("not within {deadline:?}: {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
