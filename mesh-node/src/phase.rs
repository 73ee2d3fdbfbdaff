//! Where the process is in its life, and who is still working.
//!
//! Invariant: phases only advance. Work that must not be cut off holds a [`Busy`]; draining waits for all of them, bounded.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

/// The phases, in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Rooms are being built.
    Starting,
    /// Connections are taken.
    Serving,
    /// No new connections; open ones may end by themselves.
    Draining,
    /// Whatever is left is ended now.
    Stopped,
}

impl Stage {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// Everyone's handle, cheap to clone.
#[derive(Clone, Debug)]
pub struct Phase {
    stage: watch::Receiver<Stage>,
    work: TaskTracker,
}

/// The owner's handle: it alone advances.
#[derive(Debug)]
pub struct PhaseControl {
    stage: watch::Sender<Stage>,
    work: TaskTracker,
}

/// Something is going on that draining waits for.
#[derive(Debug)]
pub struct Busy {
    _token: TaskTrackerToken,
}

/// A process that starts.
pub fn new() -> (PhaseControl, Phase) {
    let (sender, stage) = watch::channel(Stage::Starting);
    let work = TaskTracker::new();
    (PhaseControl { stage: sender, work: work.clone() }, Phase { stage, work })
}

impl Phase {
    /// The stage now.
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Returns once the stage is at least `stage`; also when the owner is gone.
    pub async fn reached(&self, stage: Stage) {
        let mut receiver = self.stage.clone();
        // An error means that the owner is gone, which is later than any stage.
        let _gone = receiver.wait_for(|now| *now >= stage).await;
    }

    /// Marks work under way.
    pub fn busy(&self) -> Busy {
        Busy { _token: self.work.token() }
    }
}

impl PhaseControl {
    /// Goes to `stage`, never back.
    pub fn advance(&self, stage: Stage) {
        self.stage.send_if_modified(|now| {
            let later = stage > *now;
            if later {
                *now = stage;
            }
            later
        });
    }

    /// Waits until nobody is busy; false if somebody still was after `wait`.
    pub async fn drained(&self, wait: Duration) -> bool {
        self.work.close();
        tokio::time::timeout(wait, self.work.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn phases_only_advance_and_draining_waits_for_the_busy() {
        let (control, phase) = new();
        control.advance(Stage::Draining);
        control.advance(Stage::Serving);
        assert_eq!(phase.stage(), Stage::Draining);
        phase.reached(Stage::Serving).await;

        let busy = phase.busy();
        assert!(!control.drained(Duration::from_secs(30)).await);
        drop(busy);
        assert!(control.drained(Duration::from_secs(30)).await);
    }

    #[tokio::test]
    async fn an_owner_that_is_gone_has_reached_every_stage() {
        let (control, phase) = new();
        drop(control);
        phase.reached(Stage::Stopped).await;
    }
}
