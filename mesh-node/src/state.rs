//! The one cell that holds the current [`Snapshot`].
//!
//! Invariants: one writer ([`Writer`], owned by the feed); readers never wait; nobody is served before the first complete snapshot.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use mesh_model::snapshot::Snapshot;
use tokio::sync::watch;

/// The readers' handle, cheap to clone.
#[derive(Clone, Debug)]
pub struct State {
    current: Arc<ArcSwap<Snapshot>>,
    generation: watch::Receiver<u64>,
    complete: watch::Receiver<bool>,
}

/// The writer's handle; there is one.
#[derive(Debug)]
pub struct Writer {
    current: Arc<ArcSwap<Snapshot>>,
    generation: watch::Sender<u64>,
    complete: watch::Sender<bool>,
}

/// An empty state and its writer.
pub fn new() -> (Writer, State) {
    let current = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let (generation, generation_seen) = watch::channel(0);
    let (complete, complete_seen) = watch::channel(false);
    let state = State { current: current.clone(), generation: generation_seen, complete: complete_seen };
    (Writer { current, generation, complete }, state)
}

impl State {
    /// The current snapshot: one atomic load.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Sees the generation of each new snapshot. Marked unchanged at creation.
    pub fn changed(&self) -> watch::Receiver<u64> {
        let mut receiver = self.generation.clone();
        receiver.mark_unchanged();
        receiver
    }

    /// Whether everything has arrived once.
    pub fn is_complete(&self) -> bool {
        *self.complete.borrow()
    }

    /// Waits for the first complete snapshot; false if it did not come within `wait`.
    pub async fn wait_complete(&self, wait: Duration) -> bool {
        if self.is_complete() {
            return true;
        }
        let mut complete = self.complete.clone();
        matches!(tokio::time::timeout(wait, complete.wait_for(|complete| *complete)).await, Ok(Ok(_)))
    }
}

impl Writer {
    /// The current snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Makes `next` the current snapshot; `complete` says that nothing is missing in it. Once complete, always complete.
    pub fn publish(&self, next: Snapshot, complete: bool) {
        let generation = next.generation();
        self.current.store(Arc::new(next));
        self.generation.send_replace(generation);
        if complete {
            self.complete.send_replace(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn complete_once_is_complete_for_ever() {
        let (writer, state) = new();
        assert!(!state.wait_complete(Duration::from_secs(5)).await);
        writer.publish(Snapshot::default().next(vec![], &[]), true);
        writer.publish(state.snapshot().next(vec![], &[]), false);
        assert!(state.is_complete() && state.wait_complete(Duration::ZERO).await);
    }

    #[tokio::test]
    async fn readers_see_the_snapshot_whose_generation_they_are_told() {
        let (writer, state) = new();
        let mut changed = state.changed();
        writer.publish(state.snapshot().next(vec![], &[]), true);
        changed.changed().await.unwrap();
        assert_eq!(*changed.borrow_and_update(), state.snapshot().generation());
        assert!(!changed.has_changed().unwrap());
    }
}
