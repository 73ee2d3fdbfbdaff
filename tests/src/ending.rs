//! The end by a signal: from its beginning on, nothing more is made on the machine.
//!
//! Invariant: once `begin` has returned, no namespace is being made and no process is being started, so whoever removes
//! a world by name finds all of it.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::thread;
use std::time::Duration;

static ENDING: RwLock<bool> = RwLock::new(false);

/// Waits for what is being made and lets nothing follow.
pub fn begin() {
    *ENDING.write().unwrap_or_else(PoisonError::into_inner) = true;
}

/// Held while something is made; never returns once the end has begun.
pub fn making() -> RwLockReadGuard<'static, bool> {
    loop {
        leave_to_the_signal();
        let ending = ENDING.read().unwrap_or_else(PoisonError::into_inner);
        if !*ending {
            return ending;
        }
    }
}

/// Returns at once, unless a signal is removing the worlds: then it waits for that to end the process. What fails
/// meanwhile fails because the worlds go, and is not worth a message; and nobody must exit before all of them are gone.
pub fn leave_to_the_signal() {
    while *ENDING.read().unwrap_or_else(PoisonError::into_inner) {
        thread::park_timeout(Duration::from_secs(1));
    }
}
