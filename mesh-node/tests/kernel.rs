//! The hooks on a real kernel: every rule of capture, seen from applications' sockets. Needs root.
//!
//! `cargo test -p mesh-node --test kernel`. Without root these tests fail; a person may say `MESH_WORLD=skip`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests fail as tests do"
)]

#[path = "kernel/agent.rs"]
mod agent;
#[path = "kernel/claim.rs"]
mod claim;
#[path = "kernel/cni.rs"]
mod cni;
#[path = "kernel/inbound.rs"]
mod inbound;
#[path = "kernel/life.rs"]
mod life;
#[path = "kernel/machine.rs"]
mod machine;
#[path = "kernel/outbound.rs"]
mod outbound;
#[path = "kernel/ports.rs"]
mod ports;
#[path = "kernel/vouching.rs"]
mod vouching;
#[path = "kernel/world.rs"]
mod world;
