//! What the plugin and the agent say to each other: one request, one reply, each one packet.
//!
//! Invariant: both are bounded; unknown fields are ignored, for the plugin that runs may be of another build than the agent.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The largest request, in bytes.
pub const REQUEST_BYTES: usize = 16 << 10;

/// The largest reply, in bytes.
pub const REPLY_BYTES: usize = 16 << 10;

/// Reasons are cut to this many characters, so that a reply always fits.
const REASON: usize = 2048;

/// What the plugin wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// A pod is about to start; its network namespace comes with the request.
    Add,
    /// A pod's sandbox is deleted; its network namespace comes with the request if it is still there.
    Del,
    /// Is the pod as ADD left it?
    Check,
}

/// One request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// What is wanted.
    pub order: Order,
    /// The pod's UID.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The runtime's name for this sandbox of the pod.
    pub sandbox: String,
    /// The addresses that the plugins before gave it, the primary one first.
    #[serde(default)]
    pub ips: Vec<IpAddr>,
}

/// The reply.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "reason")]
pub enum Reply {
    /// Its traffic is captured.
    Captured,
    /// It is not in the mesh.
    NotEnrolled,
    /// It is in the mesh, or may be, and cannot be captured now.
    Refused(String),
    /// What was to be ended has ended.
    Done,
}

impl Reply {
    /// A refusal with its reason, cut to what fits.
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(reason.into().chars().take(REASON).collect())
    }
}
