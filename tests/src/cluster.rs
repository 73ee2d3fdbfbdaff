//! A real Kubernetes on this machine (`cargo xtask cluster up`), the mesh in it, and what tests do with both.
//!
//! ```no_run
//! # use mesh_tests::cluster::{App, Cluster};
//! let cluster = Cluster::with_mesh()?;
//! let space = cluster.space("hello")?;
//! space.deploy(&App::echo("b").node(2))?;
//! let a = space.deploy(&App::echo("a").node(1))?;
//! space.enroll()?;
//! assert_eq!(a.get(&space.url("b", "/hello"))?.status(), 200);
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! Invariants: each test has namespaces of its own and removes them; nothing waits without a deadline; the parts are the very images
//! that a user installs. Tests share the two nodes and the mesh, so they run one after the other.

mod app;
mod kubectl;
mod machine;
mod mesh;
mod pod;
mod space;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

pub use app::{App, Probe};
pub use machine::{NodeName, Part};
pub use pod::ClusterPod;
pub use space::Space;

/// Names the kubeconfig, if it is not the one of `cargo xtask cluster up`.
const KUBECONFIG: &str = "TULLE_KUBECONFIG";

/// Where the mesh itself runs.
pub const OWN_NAMESPACE: &str = "tulle-system";

/// How long a pod may take to run, or a rollout to finish, on two busy cores.
pub const ROLLOUT: Duration = Duration::from_secs(90);

/// The cluster, reached as its administrator.
#[derive(Clone, Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
}

impl Cluster {
    /// The cluster that is up, whatever is installed in it.
    pub fn connect() -> Result<Self> {
        let kubeconfig = std::env::var_os(KUBECONFIG)
            .map_or_else(|| PathBuf::from("/run/tulle/cluster/kubeconfig"), PathBuf::from);
        if !kubeconfig.is_file() {
            bail!("there is no cluster: run `cargo xtask cluster up` (or name a kubeconfig in {KUBECONFIG})");
        }
        Ok(Self { kubeconfig })
    }

    /// The cluster with the mesh in it, installed by Helm if it is not there.
    pub fn with_mesh() -> Result<Self> {
        let cluster = Self::connect()?;
        cluster.install_mesh()?;
        Ok(cluster)
    }

    /// A namespace of its own, removed when the value is dropped.
    pub fn space(&self, name: &str) -> Result<Space> {
        Space::create(self.clone(), name)
    }
}
