//! The objects people write, one file per family.

use std::{fmt, sync::Arc};

/// The kinds that are read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// core/v1.
    Node,
    /// core/v1.
    Namespace,
    /// core/v1.
    ServiceAccount,
    /// core/v1.
    ConfigMap,
    /// core/v1.
    Pod,
    /// core/v1.
    Service,
    /// discovery.k8s.io/v1.
    EndpointSlice,
    /// networking.istio.io.
    VirtualService,
    /// networking.istio.io.
    DestinationRule,
    /// security.istio.io.
    AuthorizationPolicy,
    /// security.istio.io.
    PeerAuthentication,
}

/// Names one object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectRef {
    /// What it is.
    pub kind: Kind,
    /// Its namespace; empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// One object as written.
#[derive(Clone, PartialEq, Debug)]
pub enum Object {}

impl Object {
    /// Its name.
    pub fn reference(&self) -> ObjectRef {
        match *self {}
    }
}

impl Kind {
    /// As written in `kind:`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Namespace => "Namespace",
            Self::ServiceAccount => "ServiceAccount",
            Self::ConfigMap => "ConfigMap",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::PeerAuthentication => "PeerAuthentication",
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind.as_str(), self.name)
        } else {
            write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
        }
    }
}
