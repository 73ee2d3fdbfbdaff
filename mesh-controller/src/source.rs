//! Where the facts come from: a directory of YAML files, or a Kubernetes API server.
//!
//! Invariant: both say the same thing, [`Changes`] of texts with names. A text is a file of the directory, or one object of the API.

pub mod dir;
pub mod kube;

use mesh_api::Parsed;
use tokio::sync::{mpsc, oneshot};

/// What is different since the last look.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Changes {
    /// Texts that are new or say something else, parsed.
    pub parsed: Vec<Parsed>,
    /// Texts that are gone; none of them is in `parsed`.
    pub removed: Vec<String>,
    /// The first reading is not complete: nothing may be made of it yet.
    pub partial: bool,
    /// Why the source as a whole could not be read: everything else stays as it was.
    pub unreadable: Option<String>,
}

/// Asks for a look at the source now.
#[derive(Clone, Debug)]
pub struct Rescan {
    requests: mpsc::Sender<oneshot::Sender<()>>,
}

impl Rescan {
    /// Returns when everything that the source says has been sent to the publisher; false if the source has stopped.
    pub async fn now(&self) -> bool {
        let (done, answered) = oneshot::channel();
        self.requests.send(done).await.is_ok() && answered.await.is_ok()
    }
}

/// The requests of a source, and the handle to ask it.
pub fn rescan_channel() -> (Rescan, mpsc::Receiver<oneshot::Sender<()>>) {
    let (requests, receiver) = mpsc::channel(64);
    (Rescan { requests }, receiver)
}
