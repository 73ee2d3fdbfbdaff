//! Which identity may be asked for by which node: the controller's own data, never the node's word.
//!
//! Invariant: only live pods with a service account are enrolled (the compiler sees to that), so only their identities are given.

use std::collections::{BTreeMap, HashMap};

use mesh_model::{
    identity::Identity,
    name::{NodeName, WorkloadUid},
    resource::Resource,
    workload::{Enrolment, Workload},
};

/// The identities of each node, at one generation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Placement {
    nodes: HashMap<NodeName, BTreeMap<Identity, Placed>>,
    workloads: HashMap<WorkloadUid, NodeName>,
}

/// What is known of one identity on one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Placed {
    /// At least one of its pods there is in the mesh.
    enrolled: bool,
}

/// Why an identity is not given to a node.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotPlaced {
    /// No live pod of that node has it.
    #[error("no live pod on node {node} has identity {identity}")]
    Elsewhere {
        /// Who asked.
        node: NodeName,
        /// For what.
        identity: Identity,
    },
    /// There is such a pod, and it is not in the mesh.
    #[error("the pods with identity {identity} on node {node} are not enrolled in the mesh")]
    NotEnrolled {
        /// Who asked.
        node: NodeName,
        /// For what.
        identity: Identity,
    },
}

impl Placement {
    /// Reads the placement out of compiled resources.
    pub fn of<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> Self {
        let mut placement = Self::default();
        for resource in resources {
            if let Resource::Workload(workload) = resource {
                placement.add(workload);
            }
        }
        placement
    }

    /// Whether the node runs an enrolled pod of this identity.
    pub fn check(&self, node: &NodeName, identity: &Identity) -> Result<(), NotPlaced> {
        match self.nodes.get(node).and_then(|identities| identities.get(identity)) {
            Some(placed) if placed.enrolled => Ok(()),
            Some(_) => Err(NotPlaced::NotEnrolled { node: node.clone(), identity: identity.clone() }),
            None => Err(NotPlaced::Elsewhere { node: node.clone(), identity: identity.clone() }),
        }
    }

    /// Where the workload runs.
    pub fn node_of(&self, workload: &WorkloadUid) -> Option<&NodeName> {
        self.workloads.get(workload)
    }

    fn add(&mut self, workload: &Workload) {
        self.workloads.insert(workload.uid.clone(), workload.node.clone());
        let enrolled = workload.enrolment == Enrolment::Yes;
        let identities = self.nodes.entry(workload.node.clone()).or_default();
        let placed = identities.entry(workload.identity.clone()).or_insert(Placed { enrolled: false });
        placed.enrolled |= enrolled;
    }
}
