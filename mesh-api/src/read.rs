//! One object -> its meaning as far as it can be told from the object alone.
//!
//! Admission runs these for their findings, compilation for their results: what is checked is what is used.

pub(crate) mod destination;
pub(crate) mod http_route;
pub(crate) mod mesh;
pub(crate) mod network_policy;
pub(crate) mod peer;
pub(crate) mod pod;
pub(crate) mod policy;
pub(crate) mod probe;
pub(crate) mod retry;
pub(crate) mod routes;
pub(crate) mod selector;
pub(crate) mod service;
pub(crate) mod value;
