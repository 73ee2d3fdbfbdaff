//! Settings that hold for the whole mesh.

use std::collections::BTreeSet;

use crate::{identity::TrustDomain, name::Namespace, route::RetryPolicy};

/// The one port on the wire: whatever one workload of the mesh says to another one on another node goes to this port of it.
pub const HBONE_PORT: u16 = 15008;

/// What happens to a destination the mesh does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OutboundPolicy {
    /// Passed through as dialled.
    #[default]
    AllowAny,
    /// Refused: HTTP 502, TCP reset.
    RegistryOnly,
}

/// How a path is normalised before it is matched by routes and policies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PathNormalization {
    /// As it came.
    None,
    /// RFC 3986 dot segments, `\` as `/`, unreserved characters decoded.
    #[default]
    Base,
    /// `Base`, then `//` collapses.
    MergeSlashes,
    /// `MergeSlashes` after `%2F`, `%5C` are decoded.
    DecodeAndMergeSlashes,
}

/// May an endpoint of this node be reached without TLS between two sockets of the same process?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SameNode {
    /// Vouched plaintext where the network cannot be spoofed (routed pods), HBONE elsewhere (a bridge, a NAT).
    #[default]
    Auto,
    /// Vouched plaintext everywhere; the operator answers for the network.
    Trust,
    /// HBONE always.
    Encrypt,
}

/// Mesh-wide settings; one per snapshot.
#[derive(Clone, PartialEq, Debug)]
pub struct MeshSettings {
    /// The trust domain of every identity.
    pub trust_domain: TrustDomain,
    /// Where mesh-wide resources live, `istio-system`.
    pub root_namespace: Namespace,
    /// Unknown destinations.
    pub outbound_policy: OutboundPolicy,
    /// Paths before matching.
    pub path_normalization: PathNormalization,
    /// Same-node transport.
    pub same_node: SameNode,
    /// Retries of routes that say nothing, and of hosts without a route.
    pub default_retry: RetryPolicy,
    /// `accessLogFile` is set: requests and connections are logged.
    pub access_log: AccessLog,
    /// Namespaces whose label enrols their pods: where a pod that nobody knows yet may not start uncaptured.
    pub enrolled_namespaces: BTreeSet<Namespace>,
    /// Namespaces that never are enrolled, whatever their labels say, beside our own (see [`MeshSettings::is_exempt`]).
    pub excluded_namespaces: BTreeSet<Namespace>,
    /// The mesh is being uninstalled: nodes let go of everything, and take their hooks and CNI entry off when they stop.
    pub leaving: bool,
}

impl MeshSettings {
    /// Whether pods of this namespace never are captured and never wait for us: `own` is the namespace in which the mesh itself
    /// runs (it could not start otherwise). The one place where the controller, the agent and the CNI plugin ask.
    pub fn is_exempt(&self, own: Option<&Namespace>, namespace: &Namespace) -> bool {
        own == Some(namespace) || self.excluded_namespaces.contains(namespace)
    }
}

/// The access log's encoding, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AccessLog {
    /// None.
    Off,
    /// Istio's default text format followed by our fields.
    #[default]
    Text,
    /// The JSON object with Istio's keys and ours.
    Json,
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            root_namespace: Namespace::new("istio-system"),
            outbound_policy: OutboundPolicy::default(),
            path_normalization: PathNormalization::default(),
            same_node: SameNode::default(),
            default_retry: RetryPolicy::mesh_default(),
            access_log: AccessLog::default(),
            enrolled_namespaces: BTreeSet::new(),
            excluded_namespaces: [Namespace::new("kube-system")].into(),
            leaving: false,
        }
    }
}
