//! `security.istio.io` PeerAuthentication.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::istio::{Custom, WorkloadSelector};

/// What ports accept.
pub type PeerAuthentication = Custom<PeerAuthenticationSpec>;

/// What a PeerAuthentication says.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PeerAuthenticationSpec {
    /// Which pods; none: all of the namespace, or of the mesh in the root namespace.
    pub selector: Option<WorkloadSelector>,
    /// For all ports not named below.
    pub mtls: Option<MutualTls>,
    /// By port of the container; only with a selector.
    pub port_level_mtls: BTreeMap<String, MutualTls>,
}

/// A mode.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MutualTls {
    /// Which; UNSET when absent.
    pub mode: Option<Mode>,
}

/// `mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    /// What the next wider scope says.
    Unset,
    /// Plaintext; as PERMISSIVE here, because enrolled callers always come with mTLS.
    Disable,
    /// Both.
    Permissive,
    /// mTLS only.
    Strict,
}
