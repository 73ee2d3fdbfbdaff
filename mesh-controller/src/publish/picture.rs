//! The compiled mesh, encoded once for all nodes: what each node is to hold.
//!
//! Invariant: a workload looks the same to every node but its own, which alone learns its network namespace, exclusions and
//! contested addresses; so a change of those is one message to one node. A node gets only policies that select its own workloads.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use mesh_model::{
    name::{NodeName, ObjectKey},
    resource::{Resource, ResourceKey},
    workload::{Exclusions, Workload},
};
use mesh_proto::{encode, v1, version::Version};

/// A resource in the form that goes over the wire.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Its content hash.
    pub version: Version,
    /// The message.
    pub message: v1::Resource,
    /// Its size in bytes when encoded.
    pub bytes: usize,
}

impl Encoded {
    fn of(resource: &Resource) -> Self {
        let message = encode::resource(resource);
        Self { version: Version::of(&message), bytes: encode::encoded_len(&message), message }
    }
}

/// One resource in all its forms.
#[derive(Debug)]
struct Entry {
    resource: Resource,
    /// As every node sees it.
    common: Encoded,
    /// As the workload's own node sees it, where that differs.
    own: Option<(NodeName, Encoded)>,
}

impl Entry {
    fn of(resource: &Resource) -> Self {
        match resource {
            Resource::Workload(workload) if has_private_parts(workload) => Self {
                resource: resource.clone(),
                common: Encoded::of(&Resource::Workload(without_private_parts(workload))),
                own: Some((workload.node.clone(), Encoded::of(resource))),
            },
            _ => Self { resource: resource.clone(), common: Encoded::of(resource), own: None },
        }
    }

    fn seen_by(&self, node: &NodeName) -> &Encoded {
        match &self.own {
            Some((own, encoded)) if own == node => encoded,
            _ => &self.common,
        }
    }
}

fn has_private_parts(workload: &Workload) -> bool {
    workload.netns.is_some()
        || workload.exclusions != Exclusions::default()
        || !workload.contested_ips.is_empty()
}

fn without_private_parts(workload: &Workload) -> Workload {
    Workload { netns: None, exclusions: Exclusions::default(), contested_ips: Vec::new(), ..workload.clone() }
}

/// Everything compiled, at one generation.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    generation: u64,
    entries: BTreeMap<ResourceKey, Arc<Entry>>,
    /// The policies that select workloads of each node.
    policies: HashMap<NodeName, BTreeSet<ObjectKey>>,
}

impl Picture {
    /// Grows by one with each change.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The picture that shows `resources`, sharing every unchanged entry with this one; None if nothing changed.
    pub fn next(&self, resources: &BTreeMap<ResourceKey, Resource>) -> Option<Self> {
        // The first picture counts, however empty: nodes wait for it.
        let mut changed = self.generation == 0 || self.entries.len() != resources.len();
        let mut entries = BTreeMap::new();
        let mut policies: HashMap<NodeName, BTreeSet<ObjectKey>> = HashMap::new();
        for (key, resource) in resources {
            if let Resource::Workload(workload) = resource {
                policies.entry(workload.node.clone()).or_default().extend(workload.policies.iter().cloned());
            }
            let entry = match self.entries.get(key) {
                Some(entry) if entry.resource == *resource => entry.clone(),
                _ => {
                    changed = true;
                    Arc::new(Entry::of(resource))
                }
            };
            entries.insert(key.clone(), entry);
        }
        changed.then(|| Self { generation: self.generation + 1, entries, policies })
    }

    /// One resource of the model.
    pub fn resource(&self, key: &ResourceKey) -> Option<&Resource> {
        self.entries.get(key).map(|entry| &entry.resource)
    }

    /// Every resource of the model.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.entries.values().map(|entry| &entry.resource)
    }

    /// What the node is to hold; in whole for None.
    pub fn seen_by(&self, node: Option<&NodeName>) -> impl Iterator<Item = (&ResourceKey, &Encoded)> {
        self.entries.iter().filter_map(move |(key, entry)| match node {
            Some(node) => self.concerns(node, key).then(|| (key, entry.seen_by(node))),
            None => Some((key, entry.own.as_ref().map_or(&entry.common, |(_, encoded)| encoded))),
        })
    }

    /// What the node is to hold under this key; None: nothing.
    pub fn seen_at(&self, node: &NodeName, key: &ResourceKey) -> Option<&Encoded> {
        let entry = self.entries.get(key)?;
        self.concerns(node, key).then(|| entry.seen_by(node))
    }

    /// Where a workload runs; None for other resources and unknown ones.
    pub fn node_of(&self, key: &ResourceKey) -> Option<&NodeName> {
        match &self.entries.get(key)?.resource {
            Resource::Workload(workload) => Some(&workload.node),
            _ => None,
        }
    }

    fn concerns(&self, node: &NodeName, key: &ResourceKey) -> bool {
        match key {
            ResourceKey::Policy(policy) => {
                self.policies.get(node).is_some_and(|selected| selected.contains(policy))
            }
            _ => true,
        }
    }
}
