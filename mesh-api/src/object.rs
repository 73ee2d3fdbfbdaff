//! The objects people write, one file per kind of ours; Kubernetes' own come from `k8s-openapi`.
//!
//! Invariant: an [`Object`] has a name that is a DNS name and, if its kind has namespaces, a namespace: [`crate::parse`] and
//! [`crate::admit`] see to it.

use std::{fmt, str::FromStr, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Namespace, Node, Pod, Service, ServiceAccount},
        discovery::v1::EndpointSlice,
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

pub mod authorization_policy;
pub mod destination_rule;
pub mod http_route;
pub mod istio;
pub mod mesh_config;
pub mod peer_authentication;
pub mod virtual_service;

pub use authorization_policy::AuthorizationPolicy;
pub use destination_rule::DestinationRule;
pub use http_route::HTTPRoute;
pub use peer_authentication::PeerAuthentication;
pub use virtual_service::VirtualService;

/// The namespace of an object that names none, as `kubectl` has it.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The label of a namespace or a pod that decides whether it is in the mesh: `enabled` or `disabled`.
pub const ENROLMENT_LABEL: &str = "tulle.dev/mesh";

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $api:ident / $scope:ident;)*) => {
        /// The kinds that are read.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Kind { $($(#[doc = $doc])+ $name,)* }

        /// One object as written.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Object { $($(#[doc = $doc])+ $name(Box<$name>),)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// As written in `kind:`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// Who defines it.
            pub fn api(self) -> Api {
                match self { $(Self::$name => Api::$api,)* }
            }

            /// Whether its objects live in namespaces.
            pub fn is_namespaced(self) -> bool {
                match self { $(Self::$name => matches!(Scope::$scope, Scope::Namespaced),)* }
            }
        }

        impl Object {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$name(_) => Kind::$name,)* }
            }

            /// Its metadata.
            pub fn metadata(&self) -> &ObjectMeta {
                match self { $(Self::$name(object) => &object.metadata,)* }
            }

            /// Its metadata, to be changed.
            pub(crate) fn metadata_mut(&mut self) -> &mut ObjectMeta {
                match self { $(Self::$name(object) => &mut object.metadata,)* }
            }
        }
    };
}

enum Scope {
    Cluster,
    Namespaced,
}

kinds! {
    /// A machine that may run pods; each gets a token.
    Node = Core / Cluster;
    /// Carries the enrolment label.
    Namespace = Core / Cluster;
    /// The name behind an identity.
    ServiceAccount = Core / Namespaced;
    /// Only `istio` in the root namespace is looked at: the mesh's settings.
    ConfigMap = Core / Namespaced;
    /// A workload.
    Pod = Core / Namespaced;
    /// A name and address for pods.
    Service = Core / Namespaced;
    /// Who answers for a service; without any, the service's selector says it.
    EndpointSlice = Discovery / Namespaced;
    /// What the cluster's network lets through; only read to say where it stands in the mesh's way.
    NetworkPolicy = KubernetesNetworking / Namespaced;
    /// Routes.
    VirtualService = Networking / Namespaced;
    /// Subsets, balancing, limits.
    DestinationRule = Networking / Namespaced;
    /// Who may call.
    AuthorizationPolicy = Security / Namespaced;
    /// What a port accepts: mTLS, or plaintext too.
    PeerAuthentication = Security / Namespaced;
    /// Routes of the Gateway API.
    HTTPRoute = Gateway / Namespaced;
}

/// An API group with the versions that are read. All versions of a group mean the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Api {
    /// `v1`.
    Core,
    /// `discovery.k8s.io`.
    Discovery,
    /// `networking.k8s.io`.
    KubernetesNetworking,
    /// `networking.istio.io`.
    Networking,
    /// `security.istio.io`.
    Security,
    /// `gateway.networking.k8s.io`.
    Gateway,
}

impl Api {
    /// The group; empty for core.
    pub fn group(self) -> &'static str {
        match self {
            Self::Core => "",
            Self::Discovery => "discovery.k8s.io",
            Self::KubernetesNetworking => "networking.k8s.io",
            Self::Networking => "networking.istio.io",
            Self::Security => "security.istio.io",
            Self::Gateway => "gateway.networking.k8s.io",
        }
    }

    /// Whether it is Kubernetes' own: its API server has checked every object, and names of its kinds are used by others too.
    pub fn is_kubernetes(self) -> bool {
        matches!(self, Self::Core | Self::Discovery | Self::KubernetesNetworking)
    }

    /// The versions that are read, the preferred one first.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Core | Self::Discovery | Self::KubernetesNetworking => &["v1"],
            Self::Networking => &["v1", "v1beta1", "v1alpha3"],
            Self::Security | Self::Gateway => &["v1", "v1beta1"],
        }
    }
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

impl Object {
    /// Its name among all objects.
    pub fn reference(&self) -> ObjectRef {
        let metadata = self.metadata();
        let namespace = match (self.kind().is_namespaced(), metadata.namespace.as_deref()) {
            (false, _) => "",
            (true, None | Some("")) => DEFAULT_NAMESPACE,
            (true, Some(namespace)) => namespace,
        };
        ObjectRef {
            kind: self.kind(),
            namespace: namespace.into(),
            name: metadata.name.as_deref().unwrap_or_default().into(),
        }
    }
}

/// The text names no kind that is read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a kind that is read")]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}
