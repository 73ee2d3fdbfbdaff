//! The tasks of the process, by name.

use std::collections::HashMap;

use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{AppError, FAREWELL};

/// The tasks of the process. One that ends, ends all: half a controller is worse than one that is started again.
pub(super) struct Rooms {
    tasks: JoinSet<()>,
    names: HashMap<tokio::task::Id, &'static str>,
    stop: CancellationToken,
}

impl Rooms {
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), names: HashMap::new(), stop }
    }

    pub(super) fn open(&mut self, name: &'static str, room: impl Future<Output = ()> + Send + 'static) {
        // Dropped at the end of the task, also when it panics.
        let guard = self.stop.clone().drop_guard();
        let task = self.tasks.spawn(async move {
            room.await;
            drop(guard);
        });
        self.names.insert(task.id(), name);
    }

    /// Waits for all to end, for a while.
    pub(super) async fn close(mut self) -> Result<(), AppError> {
        let ended = timeout(FAREWELL, async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    return Err(AppError::Room(self.names.get(&error.id()).copied().unwrap_or("a room")));
                }
            }
            Ok(())
        });
        ended.await.unwrap_or_else(|_| {
            tracing::warn!("some tasks did not end in time");
            Ok(())
        })
    }
}
