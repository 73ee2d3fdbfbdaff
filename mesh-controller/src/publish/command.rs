//! What the publisher can be asked and told, and what it makes known.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use mesh_model::{
    name::{NodeName, WorkloadUid},
    resource::ResourceKey,
};
use mesh_proto::{v1, version::Version};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Statuses;
use crate::{auth::Roster, placement::Placement, source::Changes};

/// Commands waiting; then the senders wait.
pub const COMMANDS: usize = 1024;

/// Names one stream of one node: a second stream of the same node gets another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamId(pub(super) u64);

/// A node that said Hello.
#[derive(Debug)]
pub struct Connect {
    /// Who, proven by its token.
    pub node: NodeName,
    /// Its version.
    pub version: String,
    /// What it holds.
    pub held: HashMap<ResourceKey, Version>,
    /// Where its inspection API is.
    pub inspect_address: String,
    /// The way to it. Room for a delta and a farewell.
    pub outbound: mpsc::Sender<Result<v1::ControllerMessage, Status>>,
    /// Cancelled when the stream is over on our side.
    pub over: CancellationToken,
}

/// What a connected node says.
#[derive(Debug)]
pub enum Said {
    /// It applied a delta, but for these.
    Ack {
        /// Which delta.
        nonce: u64,
        /// What it would not take.
        refused: Vec<(ResourceKey, String)>,
    },
    /// The state of its workloads.
    Report(v1::Report),
}

/// Where a node's inspection API is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Located {
    /// `host:port`.
    pub inspect_address: String,
}

/// Everything that the publisher can be asked or told.
#[derive(Debug)]
pub enum Command {
    /// The source changed.
    Source(Changes),
    /// The mesh is being uninstalled, or is not any more.
    Leaving(bool),
    /// What is remembered as published, where it is kept; None: nothing that can be read.
    Remembered(Option<BTreeSet<WorkloadUid>>),
    /// A node came.
    Connect(Connect, oneshot::Sender<StreamId>),
    /// A node said something.
    Heard(StreamId, NodeName, Said),
    /// A node's stream ended.
    Gone(StreamId, NodeName),
    /// Answer when everything is quiet, or at the deadline.
    Settle(Instant, oneshot::Sender<v1::SettleReply>),
    /// For `meshctl status`.
    Status(oneshot::Sender<v1::StatusReply>),
    /// For `meshctl config`; of one node, or of all.
    Dump(Option<NodeName>, oneshot::Sender<Option<v1::DumpReply>>),
    /// For a grant; None: the node is not connected.
    Locate(NodeName, oneshot::Sender<Option<Located>>),
}

/// Whether the controller can serve.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Readiness {
    /// The source was read and compiled once.
    pub compiled: bool,
    /// Why the source cannot be read now.
    pub source_error: Option<String>,
}

/// What the publisher makes known to the rest of the process.
#[derive(Debug)]
pub struct Outputs {
    /// Who runs where, for signing.
    pub placement: watch::Sender<Arc<Placement>>,
    /// Which nodes there are, for those who check callers.
    pub roster: Roster,
    /// Whether we can serve.
    pub readiness: watch::Sender<Readiness>,
    /// What objects are to be told; None until the first compilation. Without a receiver nothing is made.
    pub statuses: watch::Sender<Option<Arc<Statuses>>>,
}

/// What does not change while the process runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `dir:PATH` or `kubernetes`.
    pub source: String,
    /// RFC 3339.
    pub ca_not_after: String,
}
