//! What the process knows of the place it serves.
//!
//! Invariant: the default is a directory, whose one owner writes everything in it. On a cluster many people write, and the API server
//! says more than a directory can: use [`Options::on_cluster`], so that nothing of the directory's trust is left in force.

use mesh_model::{identity::TrustDomain, name::Namespace};

/// What the process says about the mesh, where no object does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The trust domain, unless the mesh's settings name one.
    pub trust_domain: TrustDomain,
    /// Whether Istio's enrolment labels count (`istio.io/dataplane-mode`, `istio-injection`, `sidecar.istio.io/inject`).
    pub istio_labels: bool,
    /// What follows `svc.` in the full name of a service.
    pub cluster_domain: String,
    /// Where the mesh itself runs: never enrolled. None where it runs outside of what it serves.
    pub own_namespace: Option<Namespace>,
    /// Whether a pod's annotation may name its network namespace: in a directory its owner writes it, on a cluster anybody could.
    pub trusts_netns: bool,
    /// Whether a service without EndpointSlices has the pods of its selector as endpoints: on a cluster somebody writes the slices,
    /// and a service that has none yet has no endpoints.
    pub selects_endpoints: bool,
    /// The mesh is being uninstalled: nobody is wanted any more.
    pub leaving: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            istio_labels: true,
            cluster_domain: "cluster.local".to_owned(),
            own_namespace: None,
            trusts_netns: true,
            selects_endpoints: true,
            leaving: false,
        }
    }
}

impl Options {
    /// Those of a Kubernetes cluster in whose namespace `own` the mesh runs.
    pub fn on_cluster(own: Namespace) -> Self {
        Self { own_namespace: Some(own), trusts_netns: false, selects_endpoints: false, ..Self::default() }
    }
}
