//! The contract between controller, nodes and meshctl: a delta stream, certificate signing, inspection.
//!
//! Generated code lives only here. `decode` is the only place where a bad message is refused.

/// The generated messages and services, package `tulle.v1`.
pub mod v1 {
    #![allow(missing_docs, clippy::all, reason = "generated; the documentation is in proto/")]
    tonic::include_proto!("tulle.v1");
}
