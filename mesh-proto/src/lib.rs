//! The contract between controller, nodes and meshctl: a delta stream, certificate signing, inspection.
//!
//! Generated code lives only here. `decode` is the only place where a bad message is refused; `version` says when two resources are
//! the same.

pub mod decode;
pub mod encode;
pub mod version;

mod debug;

/// The generated messages and services, package `tulle.v1`.
pub mod v1 {
    #![allow(
        missing_docs,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "generated; the documentation is in proto/"
    )]
    tonic::include_proto!("tulle.v1");
}
