//! How many bytes the process keeps for connections beyond their first buffers, all workers together.
//!
//! Invariant: the sum of all shares never exceeds the limit; who gets no share goes on without (a smaller buffer, no retry).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The process's budget.
#[derive(Debug)]
pub struct Buffers {
    used: AtomicUsize,
    limit: usize,
}

/// What one holder has of it; given back when dropped.
#[derive(Debug)]
pub struct Share {
    buffers: Arc<Buffers>,
    held: usize,
}

impl Buffers {
    /// A budget of so many bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit })
    }

    /// A share of nothing, to grow.
    pub fn share(self: &Arc<Self>) -> Share {
        Share { buffers: self.clone(), held: 0 }
    }

    fn take(&self, bytes: usize) -> bool {
        let taken = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }
}

impl Share {
    /// Holds so many bytes from now on; false, and nothing changes, if there are not as many.
    pub fn resize(&mut self, bytes: usize) -> bool {
        if bytes > self.held && !self.buffers.take(bytes - self.held) {
            return false;
        }
        if bytes < self.held {
            self.buffers.used.fetch_sub(self.held - bytes, Ordering::Relaxed);
        }
        self.held = bytes;
        true
    }

    /// Holds so many bytes more.
    pub fn grow(&mut self, bytes: usize) -> bool {
        self.resize(self.held.saturating_add(bytes))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.buffers.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_limit_and_are_given_back() {
        let buffers = Buffers::new(100);
        let (mut one, mut other) = (buffers.share(), buffers.share());
        assert!(one.resize(60) && !other.resize(50) && other.resize(40));
        assert!(!one.grow(1));
        assert!(one.resize(10) && other.grow(50));
        drop(other);
        assert!(one.resize(100));
        drop(one);
        assert_eq!(buffers.used.load(Ordering::Relaxed), 0);
    }
}
