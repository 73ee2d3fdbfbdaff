//! Worlds: a mesh of real parts on one machine, in network namespaces of its own.
//!
//! ```no_run
//! # use mesh_tests::World;
//! World::new("hello").nodes(2).run(|world| {
//!     let a = world.pod("a").node(1).spawn()?;
//!     let b = world.pod("b").node(2).spawn()?;
//!     world.service("b").port("http", 80, 80).create()?;
//!     world.settle()?;
//!     let answer = a.get("http://b.shop/hello")?;
//!     assert_eq!((answer.status(), answer.text("/pod")), (200, "b"));
//!     assert_eq!(answer.text("/remote_ip"), a.ip4().to_string());
//!     Ok(())
//! });
//! ```
//!
//! Invariants: worlds do not touch each other or the machine's own network; nothing waits by sleeping for a push (the
//! controller says when all nodes have acknowledged); a world leaves nothing behind, and what a killed one left, the
//! next removes. A world that cannot run fails; only a person who sets `MESH_WORLD=skip` turns that into a loud skip.

pub mod bench;
mod call;
mod cgroup;
mod check;
pub mod cluster;
pub mod demo;
mod ending;
mod metrics;
mod net;
mod packets;
mod process;
mod repo;
mod seat;
mod stand_in;
mod world;

pub use call::{Answer, Call, Failure, Hold, HoldEnd, Load, LoadReport, Outcome, RunningLoad, Talk};
pub use check::eventually;
pub use metrics::{Metrics, Sample};
pub use net::in_netns;
pub use packets::{Capture, Packet};
pub use process::Process;
pub use repo::{binary, root as repo_root};
pub use seat::Seat;
pub use stand_in::NodeStandIn;
pub use world::{
    Builder, ControlLink, Host, HostProcess, Mesh, Pod, PodBuilder, ServiceBuilder, Settled, World, bearer,
    traces,
};
