//! Deltas become snapshots.
//!
//! Invariant: what cannot be decoded is refused by its key, and neither its last good form nor the rest of the delta is touched.

use std::collections::HashMap;

use bytes::Bytes;
use mesh_model::resource::ResourceKey;
use mesh_proto::{
    decode, encode,
    v1::{self, Ack, Delta, HeldResource, Refused, VersionedResource, resource::Body, resource_key::Key},
};

use crate::state::Writer;

/// The writer of the state, and the versions of what is in it.
#[derive(Debug)]
pub(super) struct Applier {
    writer: Writer,
    versions: HashMap<ResourceKey, Bytes>,
}

impl Applier {
    pub(super) fn new(writer: Writer) -> Self {
        Self { writer, versions: HashMap::new() }
    }

    /// What the node has, so that the controller sends nothing twice.
    pub(super) fn held(&self) -> Vec<HeldResource> {
        let held = |(key, version): (&ResourceKey, &Bytes)| HeldResource {
            key: Some(encode::key(key)),
            version: version.clone(),
        };
        self.versions.iter().map(held).collect()
    }

    /// Makes the next snapshot current and says what became of the delta. Each delta makes exactly one snapshot.
    pub(super) fn apply(&mut self, delta: Delta) -> Ack {
        let mut refused = Vec::new();
        let mut upserts = Vec::with_capacity(delta.upserts.len());
        for VersionedResource { version, resource } in delta.upserts {
            let Some(resource) = resource else {
                refused.push(Refused { key: None, error: "a resource without a body".to_owned() });
                continue;
            };
            let key = claimed_key(&resource);
            match decode::resource(resource) {
                Ok(decoded) => {
                    self.versions.insert(decoded.key(), version);
                    upserts.push(decoded);
                }
                Err(error) => refused.push(Refused { key, error: error.to_string() }),
            }
        }
        let mut removals = Vec::with_capacity(delta.removals.len());
        for key in delta.removals {
            match decode::key(key.clone()) {
                Ok(decoded) => {
                    self.versions.remove(&decoded);
                    removals.push(decoded);
                }
                Err(error) => refused.push(Refused { key: Some(key), error: error.to_string() }),
            }
        }
        for refusal in &refused {
            tracing::warn!(key = ?refusal.key, error = refusal.error, "a resource is refused; its last good form stays");
        }
        let next = self.writer.snapshot().next(upserts, &removals);
        let generation = next.generation();
        self.writer.publish(next, delta.complete);
        Ack { nonce: delta.nonce, refused, generation }
    }
}

/// The key that a resource gives itself, good or not, to name it in a refusal.
fn claimed_key(resource: &v1::Resource) -> Option<v1::ResourceKey> {
    let key = match resource.body.as_ref()? {
        Body::Mesh(_) => Key::Mesh(v1::Unit {}),
        Body::Workload(workload) => Key::Workload(workload.uid.clone()),
        Body::Service(service) => Key::Service(service.key.clone()?),
        Body::Policy(policy) => Key::Policy(policy.key.clone()?),
        Body::Routes(routes) => Key::Routes(routes.key.clone()?),
        Body::Destination(destination) => Key::Destination(destination.key.clone()?),
    };
    Some(v1::ResourceKey { key: Some(key) })
}
