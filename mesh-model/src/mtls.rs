//! PeerAuthentication, resolved to one workload.

use std::collections::BTreeMap;

/// What a port accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MtlsMode {
    /// mTLS and plaintext.
    #[default]
    Permissive,
    /// mTLS (or a vouched same-node peer) only; a plaintext connection is closed.
    Strict,
    /// As `Permissive` here: a sidecarless mesh cannot refuse its own transport (Istio's ambient reads it so too).
    Disable,
}

/// The modes of a workload: per port of the pod, else the default.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MtlsModes {
    /// For ports not named in `ports`.
    pub default: MtlsMode,
    /// `portLevelMtls`, by port of the pod.
    pub ports: BTreeMap<u16, MtlsMode>,
    /// Which object decided, for people: `PeerAuthentication shop/default`. Empty: the built-in default.
    pub from: String,
}

impl MtlsModes {
    /// The mode of a port of the pod.
    pub fn of(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.default)
    }
}
