//! The wire into the model, refusing what is bad: the one place where that happens.
//!
//! Invariant: what decodes can be used without another look — names are not empty, addresses are canonical, ports are ports, patterns
//! compile, header names and values are legal. An unknown enum value is refused, never guessed: the node keeps its last good one.

use mesh_model::resource::{Resource, ResourceKey};

use crate::v1;

mod error;
mod policy;
mod routes;
mod scalar;
#[cfg(test)]
mod tests;
mod traffic;
mod workload;

pub use error::{DecodeError, Problem};

use error::{Located, required};
use scalar::{object_key, service_key, text};

/// Decodes a resource.
pub fn resource(wire: v1::Resource) -> Result<Resource, DecodeError> {
    use v1::resource::Body;
    match required("body", wire.body)? {
        Body::Mesh(mesh) => traffic::mesh(mesh).map(Resource::Mesh).at("mesh"),
        Body::Workload(workload) => workload::workload(workload).map(Resource::Workload).at("workload"),
        Body::Service(service) => workload::service(service).map(Resource::Service).at("service"),
        Body::Policy(policy) => policy::policy(policy).map(Resource::Policy).at("policy"),
        Body::Routes(table) => routes::routes(table).map(Resource::Routes).at("routes"),
        Body::Destination(rule) => traffic::destination(rule).map(Resource::Destination).at("destination"),
    }
}

/// Decodes the key of a resource.
pub fn key(wire: v1::ResourceKey) -> Result<ResourceKey, DecodeError> {
    use v1::resource_key::Key;
    match required("key", wire.key)? {
        Key::Mesh(v1::Unit {}) => Ok(ResourceKey::Mesh),
        Key::Workload(uid) => {
            text(uid).map(|uid| ResourceKey::Workload(mesh_model::name::WorkloadUid::new(uid))).at("workload")
        }
        Key::Service(key) => service_key(key).map(ResourceKey::Service).at("service"),
        Key::Policy(key) => object_key(key).map(ResourceKey::Policy).at("policy"),
        Key::Routes(key) => object_key(key).map(ResourceKey::Routes).at("routes"),
        Key::Destination(key) => {
            let (object, host) = scalar::destination_key(key).at("destination")?;
            Ok(ResourceKey::Destination(object, host))
        }
    }
}
