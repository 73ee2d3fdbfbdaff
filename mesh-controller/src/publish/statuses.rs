//! What objects are to be told about themselves: the condition of pods, the status of routes.
//!
//! Pure and level-triggered: always everything there is to say. Invariant: only pods that the mesh has something to say about are in it
//! (those that are wanted, cannot be, or have a finding), so that leaving them out takes back what was said.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use mesh_api::{EnrolmentDecision, Kind, ObjectRef, RouteStatus, Severity};
use mesh_model::{
    name::WorkloadUid,
    resource::{Resource, ResourceKey},
};
use mesh_proto::v1;
use tokio::time::Instant;

use super::{MAY_RETURN, Publisher, View};
use crate::enrol::{Evidence, Stage, Witness};

/// Characters of a condition's message.
const MAX_MESSAGE: usize = 1024;

/// Everything that objects are to be told.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Statuses {
    /// Pods by UID.
    pub pods: BTreeMap<WorkloadUid, PodStatus>,
    /// Routes of the Gateway API.
    pub routes: Arc<BTreeMap<ObjectRef, RouteStatus>>,
    /// The mesh was told to leave, and no workload is captured any more.
    pub left: bool,
}

/// What one pod is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The condition.
    pub verdict: Verdict,
}

/// A condition but for its times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// `True`: captured; `False`: not; `Unknown`: its node is away.
    pub status: &'static str,
    /// One word.
    pub reason: &'static str,
    /// A sentence; may be empty.
    pub message: String,
}

impl Verdict {
    fn new(status: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        let message: String = message.into();
        Self { status, reason, message: message.chars().take(MAX_MESSAGE).collect() }
    }
}

impl Publisher {
    /// Makes known what objects are to be told, if somebody writes it.
    pub(super) fn tell_statuses(&self, now: Instant) {
        if !self.loaded || self.outputs.statuses.is_closed() {
            return;
        }
        let statuses = Statuses {
            pods: self.pod_statuses(now),
            routes: self.route_statuses.clone(),
            left: self.index.options().leaving && self.nothing_is_captured(now),
        };
        self.outputs.statuses.send_if_modified(|told| {
            let changed = told.as_deref() != Some(&statuses);
            if changed {
                *told = Some(Arc::new(statuses));
            }
            changed
        });
    }

    /// Whether whoever uninstalls still waits for us.
    pub(super) fn is_leaving_still(&self) -> bool {
        let left = self.outputs.statuses.borrow().as_ref().is_some_and(|told| told.left);
        self.index.options().leaving && !left
    }

    /// No workload is in the hand-shake, and every node that is connected, or may come back, has said that it captures none.
    fn nothing_is_captured(&self, now: Instant) -> bool {
        let mut streams = self.connections.values().map(|connection| &connection.stream);
        self.enrolments.stages().next().is_none()
            && self.view(now).all_acknowledged(self.picture.generation())
            && streams.all(|stream| {
                let mut reported = stream.reported();
                stream.report_is_current()
                    && reported.all(|(_, reported)| reported.state != v1::CaptureState::Captured)
            })
    }

    fn pod_statuses(&self, now: Instant) -> BTreeMap<WorkloadUid, PodStatus> {
        let stages: HashMap<&WorkloadUid, Stage> = self.enrolments.stages().collect();
        let findings = self.pod_findings();
        let witness = self.view(now);
        let mut statuses = BTreeMap::new();
        for (uid, decision) in &self.decisions {
            let Some(Resource::Workload(workload)) =
                self.picture.resource(&ResourceKey::Workload(uid.clone()))
            else {
                continue;
            };
            let (namespace, name) = (workload.namespace.as_str(), &*workload.name);
            let finding = findings.get(&(namespace, name)).copied();
            let verdict = match decision {
                EnrolmentDecision::Wanted if let Some(message) = self.cut_off.get(uid) => {
                    Verdict::new("False", "NetworkPolicyBlocks", message)
                }
                EnrolmentDecision::Wanted => {
                    let evidence = witness.capture(&workload.node, uid);
                    let stage = stages.get(uid).copied();
                    self.of_wanted(uid, workload.node.as_str(), stage, evidence, finding, now)
                }
                EnrolmentDecision::Refused(reason) => Verdict::new("False", "EnrolmentRefused", reason),
                EnrolmentDecision::NotWanted => match finding {
                    Some(message) => Verdict::new("False", "Finding", message),
                    None => continue,
                },
            };
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            // A static pod is told by its copy.
            let uid = self.mirrored_as.get(uid).unwrap_or(uid).clone();
            statuses.insert(uid, PodStatus { namespace, name, verdict });
        }
        statuses
    }

    fn of_wanted(
        &self,
        uid: &WorkloadUid,
        node: &str,
        stage: Option<Stage>,
        evidence: Evidence,
        finding: Option<&str>,
        now: Instant,
    ) -> Verdict {
        match (stage, evidence) {
            (Some(Stage::Captured), Evidence::NodeAway) if self.may_return(node, now) => {
                Verdict::new("True", "Captured", finding.unwrap_or_default())
            }
            (_, Evidence::NodeAway) => {
                let message =
                    format!("the agent of node {node} is not connected; what it captured stays captured");
                Verdict::new("Unknown", "NodeAway", message)
            }
            (Some(Stage::Captured), Evidence::Captured | Evidence::NotYet) => {
                Verdict::new("True", "Captured", finding.unwrap_or_default())
            }
            (_, Evidence::Refused) => Verdict::new("False", "CaptureRefused", self.node_s_reason(uid)),
            _ => {
                let waiting = format!("waiting for the agent of node {node}");
                let message = match self.node_s_reason(uid) {
                    reason if reason.is_empty() => waiting,
                    reason => format!("{waiting}: {reason}"),
                };
                Verdict::new("False", "Capturing", message)
            }
        }
    }

    fn may_return(&self, node: &str, now: Instant) -> bool {
        self.left_at.iter().any(|(name, left)| name.as_str() == node && *left + MAY_RETURN > now)
    }

    fn node_s_reason(&self, uid: &WorkloadUid) -> String {
        let mut reports = self.connections.values().flat_map(|connection| connection.stream.reported());
        reports
            .find(|(reported, _)| *reported == uid)
            .map_or_else(String::new, |(_, said)| said.reason.clone())
    }

    /// The worst finding about each pod, by namespace and name.
    fn pod_findings(&self) -> HashMap<(&str, &str), &str> {
        let mut findings = HashMap::new();
        // The worst come first.
        for finding in self.diagnostics.iter().filter(|finding| finding.severity > Severity::Info) {
            if let Some(object) = finding.object.as_ref().filter(|object| object.kind == Kind::Pod) {
                findings.entry((&*object.namespace, &*object.name)).or_insert(finding.message.as_str());
            }
        }
        findings
    }

    pub(super) fn view(&self, now: Instant) -> View<'_> {
        View { connections: &self.connections, left_at: &self.left_at, picture: &self.picture, now }
    }
}
