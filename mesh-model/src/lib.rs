//! What the mesh means: names, identities, workloads, services, routes, policies, and the decisions made on them.
//!
//! Pure. No I/O, no async, no clocks, no ambient randomness: time and random draws are arguments. One crate answers "would this
//! be allowed, where would it go": the node uses it to do it, the controller to warn about it and `meshctl` to explain it.
//!
//! How it hangs together: [`resource::Resource`]s make a [`snapshot::Snapshot`]; on one snapshot [`decide`] says where a captured
//! connection or request goes and [`authz`] whether its destination lets it in; [`explain`] tells why, by running the same two.
//!
//! Two rules hold everywhere. What is not known denies: a policy that has not arrived, an attribute that cannot be seen, an address
//! that two workloads claim. And what does not change is shared: a snapshot differs from the one before only where a resource does,
//! so that a pointer comparison tells whom a change concerns.

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
