//! The per-node agent and proxy of Tulle: captures the traffic of enrolled pods, gives it identity, routes and authorises it.
//!
//! Rooms, and who may know whom: `main → app → every room`; the data path (`capture`, `proxy`, `upstream`, `conns`) reads `state`
//! and `identity` and writes `telemetry`; `feed` is the only writer of `state`; `bpf` and `sys` know the kernel and no meaning.
//! Invariant: nothing between accept and relay takes a lock shared with a writer.

pub mod admin;
pub mod app;
pub mod bpf;
pub mod capture;
pub mod check;
pub mod clock;
pub mod cni;
pub mod config;
pub mod conns;
pub mod feed;
pub mod identity;
pub mod inspect;
pub mod phase;
pub mod proxy;
pub mod recheck;
pub mod state;
pub mod sys;
pub mod telemetry;
pub mod upstream;
pub mod worker;
