//! What the mesh means: names, identities, workloads, services, routes, policies, and the decisions made on them.
//!
//! Pure. No I/O, no async, no clocks, no ambient randomness: time and random draws are arguments. One crate answers "would this
//! be allowed, where would it go": the node uses it to do it, the controller to warn about it and `meshctl` to explain it.

pub mod addr;
pub mod authz;
pub mod decide;
pub mod explain;
pub mod identity;
pub mod mesh;
pub mod mtls;
pub mod name;
pub mod path;
pub mod request;
pub mod resource;
pub mod route;
pub mod service;
pub mod snapshot;
pub mod text;
pub mod traffic;
pub mod workload;

#[cfg(test)]
mod testing;
