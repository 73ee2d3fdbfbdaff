//! The mesh in a real Kubernetes: kubelets, containerd, CNI, the API server, the chart and the images that users get.
//!
//! The tests share one cluster and take parts of it away, so they run one after the other (`cargo xtask test --only cluster`).

#[path = "cluster/chart.rs"]
mod chart;
#[path = "cluster/enrolment.rs"]
mod enrolment;
#[path = "cluster/failures.rs"]
mod failures;
#[path = "cluster/meshctl.rs"]
mod meshctl;
#[path = "cluster/network_policy.rs"]
mod network_policy;
#[path = "cluster/probes.rs"]
mod probes;
#[path = "cluster/uninstall.rs"]
mod uninstall;

/// PeerAuthentication of a whole namespace: no plaintext.
const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default }
spec: { mtls: { mode: STRICT } }
";
