//! The publisher: one task that owns the facts, the hand-shake and what every node holds. Whatever changes any of these is a
//! [`Command`] to it, so nothing here is ever seen half done.
//!
//! Invariant: after each batch of commands it compiles at most as often as the hand-shake moves, remembers what it is about to call
//! HBONE, and only then sends; what cannot be remembered is not called so. A node that does not acknowledge in time loses its stream,
//! never the others'.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use mesh_api::{
    Changed, Code, Diagnostic, EnrolmentDecision, Index, ObjectRef, Options, RouteStatus, Severity,
};
use mesh_model::{
    name::{NodeName, WorkloadUid},
    resource::{Resource, ResourceKey},
};
use mesh_proto::v1;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    enrol::{Enrolments, Evidence, Stage, Wish, Witness},
    metrics::{EndLabels, Metrics, SeverityLabels, StageLabels},
    placement::Placement,
    source::Changes,
};

mod command;
mod connection;
mod memory;
mod picture;
mod settle;
mod statuses;
mod stream;
mod view;

pub use command::{COMMANDS, Command, Connect, Facts, Located, Outputs, Readiness, Said, StreamId};
use connection::Connection;
pub use memory::{Memory, MemoryError};
use picture::Picture;
use settle::Waiter;
pub use statuses::{PodStatus, Statuses, Verdict};
use stream::Stream;

/// A node that lost its stream this recently may be about to come back, and still believes what it was told.
const MAY_RETURN: Duration = Duration::from_secs(10);
/// Commands taken before a compilation: so many changes cost one.
const BATCH: usize = 512;
/// The hand-shake takes at most this many stages in one go; each may need a compilation.
const MAX_ROUNDS: usize = 8;
/// `Settle` calls at a time.
const MAX_WAITERS: usize = 256;

/// See the module.
pub struct Publisher {
    facts: Facts,
    memory: Memory,
    metrics: Metrics,
    outputs: Outputs,

    index: Index,
    nodes: BTreeSet<NodeName>,
    enrolments: Enrolments,
    picture: Picture,
    wishes: BTreeMap<WorkloadUid, Wish>,
    decisions: BTreeMap<WorkloadUid, EnrolmentDecision>,
    cut_off: BTreeMap<WorkloadUid, String>,
    mirrored_as: BTreeMap<WorkloadUid, WorkloadUid>,
    route_statuses: Arc<BTreeMap<ObjectRef, RouteStatus>>,
    diagnostics: Vec<Diagnostic>,
    source_error: Option<String>,
    loaded: bool,
    stale: bool,

    connections: BTreeMap<NodeName, Connection>,
    left_at: HashMap<NodeName, Instant>,
    last_stream: u64,
    waiters: Vec<Waiter>,
}

impl Publisher {
    /// A publisher that knows nothing but what was published before it.
    pub fn new(options: Options, facts: Facts, memory: Memory, metrics: Metrics, outputs: Outputs) -> Self {
        Self {
            facts,
            enrolments: Enrolments::restore(memory.published()),
            memory,
            metrics,
            outputs,
            index: Index::with_options(options),
            nodes: BTreeSet::new(),
            picture: Picture::default(),
            wishes: BTreeMap::new(),
            decisions: BTreeMap::new(),
            cut_off: BTreeMap::new(),
            mirrored_as: BTreeMap::new(),
            route_statuses: Arc::default(),
            diagnostics: Vec::new(),
            source_error: None,
            loaded: false,
            stale: false,
            connections: BTreeMap::new(),
            left_at: HashMap::new(),
            last_stream: 0,
            waiters: Vec::new(),
        }
    }

    /// Serves commands until cancelled, then says farewell to every node.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) {
        loop {
            let wake = self.next_deadline();
            let command = tokio::select! {
                () = stop.cancelled() => break,
                command = commands.recv() => match command {
                    Some(command) => Some(command),
                    None => break,
                },
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => None,
            };
            if let Some(command) = command {
                self.handle(command);
                for _ in 1..BATCH {
                    let Ok(command) = commands.try_recv() else { break };
                    self.handle(command);
                }
            }
            self.advance().await;
        }
        for (_, connection) in std::mem::take(&mut self.connections) {
            connection.close(Status::unavailable("the controller is shutting down"));
        }
    }

    fn handle(&mut self, command: Command) {
        // Answers are dropped when the asker has gone.
        match command {
            Command::Source(changes) => self.source_changed(changes),
            Command::Leaving(leaving) => self.stale |= self.index.set_leaving(leaving) == Changed::Yes,
            Command::Remembered(seen) => self.memory.seen(seen.as_ref()),
            Command::Connect(connect, reply) => {
                let id = self.connect(connect);
                let _ = reply.send(id);
            }
            Command::Heard(id, node, said) => self.heard(id, &node, said),
            Command::Gone(id, node) => {
                if self.connection(id, &node).is_some() {
                    self.disconnect(&node, None, "ended");
                }
            }
            Command::Settle(deadline, reply) => self.await_settled(deadline, reply),
            Command::Status(reply) => drop(reply.send(self.status())),
            Command::Dump(node, reply) => drop(reply.send(self.dump(node.as_ref()))),
            Command::Locate(node, reply) => {
                let located = self
                    .connections
                    .get(&node)
                    .map(|connection| Located { inspect_address: connection.inspect_address.clone() });
                let _ = reply.send(located);
            }
        }
    }

    fn source_changed(&mut self, changes: Changes) {
        if let Some(error) = &changes.unreadable {
            tracing::error!(%error, "the source cannot be read; everything stays as it was");
            self.metrics.source_failures.inc();
        }
        // A source that never could be read, or not yet in whole, is not an empty mesh.
        let loaded = self.loaded || (changes.unreadable.is_none() && !changes.partial);
        let mut changed = loaded != self.loaded;
        self.loaded = loaded;
        self.source_error = changes.unreadable;
        for parsed in changes.parsed {
            changed |= self.index.apply_file(parsed) == Changed::Yes;
        }
        for file in changes.removed {
            changed |= self.index.remove_file(&file) == Changed::Yes;
        }
        self.stale |= changed;
        self.outputs.readiness.send_if_modified(|readiness| {
            let changed = readiness.source_error != self.source_error;
            readiness.source_error.clone_from(&self.source_error);
            changed
        });
    }

    fn connect(&mut self, connect: Connect) -> StreamId {
        let Connect { node, version, held, inspect_address, outbound, over } = connect;
        if self.connections.contains_key(&node) {
            self.disconnect(
                &node,
                Some(Status::aborted("another stream of this node replaced this one")),
                "replaced",
            );
        }
        self.last_stream += 1;
        let id = StreamId(self.last_stream);
        tracing::info!(%node, version, held = held.len(), "node connected");
        let stream = Stream::new(node.clone(), held);
        let now = Instant::now();
        let connection =
            Connection { id, stream, outbound, over, version, inspect_address, sent_at: now, acked_at: now };
        self.left_at.remove(&node);
        self.connections.insert(node, connection);
        id
    }

    fn connection(&mut self, id: StreamId, node: &NodeName) -> Option<&mut Connection> {
        self.connections.get_mut(node).filter(|connection| connection.id == id)
    }

    fn heard(&mut self, id: StreamId, node: &NodeName, said: Said) {
        let metrics = self.metrics.clone();
        let Some(connection) = self.connection(id, node) else { return };
        let taken = match said {
            Said::Ack { nonce, refused } => connection.acknowledge(node, nonce, refused, &metrics),
            Said::Report(report) => connection.stream.report(report),
        };
        if let Err(violation) = taken {
            let status = Status::invalid_argument(violation.to_string());
            self.disconnect(node, Some(status), "violation");
        }
    }

    fn disconnect(&mut self, node: &NodeName, farewell: Option<Status>, reason: &'static str) {
        let Some(connection) = self.connections.remove(node) else { return };
        tracing::info!(%node, reason, status = farewell.as_ref().map(Status::message), "node stream ended");
        self.metrics.stream_ends.get_or_create(&EndLabels { reason }).inc();
        self.left_at.insert(node.clone(), Instant::now());
        match farewell {
            Some(status) => connection.close(status),
            None => connection.over.cancel(),
        }
    }

    /// Brings everything up to what is known: compiles, moves the hand-shake, sends, answers.
    async fn advance(&mut self) {
        let now = Instant::now();
        if self.loaded {
            self.compile_and_step(now).await;
            self.dismiss_unknown_nodes();
            self.expire(now);
            self.send(now);
        }
        self.tell_statuses(now);
        self.answer_settled(now);
        self.metrics.connected_nodes.set(self.connections.len() as i64);
    }

    async fn compile_and_step(&mut self, now: Instant) {
        for _ in 0..MAX_ROUNDS {
            if self.stale {
                self.compile();
                self.stale = false;
            }
            let before = self.enrolments.enrolled();
            let witness =
                View { connections: &self.connections, left_at: &self.left_at, picture: &self.picture, now };
            let generation = self.picture.generation();
            self.enrolments.step(&self.wishes, &witness, generation, now.into_std());
            self.remember(&before.published).await;
            self.stale = before != self.enrolments.enrolled();
            if !self.stale {
                break;
            }
        }
        self.count_stages();
    }

    /// Before anything is compiled or sent: what cannot be remembered as HBONE is not called so.
    async fn remember(&mut self, before: &BTreeSet<WorkloadUid>) {
        let published = self.enrolments.enrolled().published;
        match self.memory.write(&published).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                self.metrics.state_failures.inc();
                tracing::error!(%error, "what is published as HBONE cannot be remembered: nothing is added to it");
            }
        }
        self.enrolments.hold_back(published.difference(before));
    }

    fn compile(&mut self) {
        let began = std::time::Instant::now();
        let compiled = mesh_api::compile(&self.index, &self.enrolments.enrolled());
        self.metrics.compile_seconds.observe(began.elapsed().as_secs_f64());
        self.wishes = wishes(&compiled.resources, &compiled.enrolment);
        self.decisions = compiled.enrolment;
        self.cut_off = compiled.cut_off;
        self.mirrored_as = compiled.mirrored_as;
        if *self.route_statuses != compiled.route_statuses {
            self.route_statuses = Arc::new(compiled.route_statuses);
        }
        let mut diagnostics = compiled.diagnostics;
        diagnostics.extend(self.foreign_trust_domain(&compiled.resources));
        self.log_news(&diagnostics);
        self.diagnostics = diagnostics;
        self.update_nodes();
        if let Some(picture) = self.picture.next(&compiled.resources) {
            // Before any node can ask on the strength of it.
            self.outputs.placement.send_replace(Arc::new(Placement::of(picture.resources())));
            self.metrics.generation.set(picture.generation() as i64);
            self.metrics.resources.set(picture.len() as i64);
            tracing::debug!(generation = picture.generation(), resources = picture.len(), "compiled");
            self.picture = picture;
        }
        let readiness = Readiness { compiled: true, source_error: self.source_error.clone() };
        self.outputs.readiness.send_if_modified(|current| {
            let changed = *current != readiness;
            *current = readiness;
            changed
        });
    }

    /// The authority signs for the trust domain of its flag; workloads of another get no certificate.
    fn foreign_trust_domain(&self, resources: &BTreeMap<ResourceKey, Resource>) -> Option<Diagnostic> {
        let Some(Resource::Mesh(mesh)) = resources.get(&ResourceKey::Mesh) else { return None };
        let ours = &self.index.options().trust_domain;
        (mesh.trust_domain != *ours).then(|| Diagnostic {
            severity: Severity::Error,
            code: Code::Invalid,
            object: None,
            field: "trustDomain".to_owned(),
            message: format!(
                "the mesh's settings say {}, the controller was started with --trust-domain {ours}: no certificate is signed",
                mesh.trust_domain
            ),
            origin: None,
        })
    }

    /// Makes known which nodes there are.
    fn update_nodes(&mut self) {
        let nodes: BTreeSet<NodeName> = self.index.nodes().into_iter().collect();
        if nodes == self.nodes && self.outputs.readiness.borrow().compiled {
            return;
        }
        if let Err(error) = self.outputs.roster.set(&nodes) {
            self.metrics.state_failures.inc();
            tracing::error!(%error, "tokens cannot be read or written; those in use stay");
        }
        self.left_at.retain(|node, _| nodes.contains(node));
        let now = Instant::now();
        for new in nodes.difference(&self.nodes) {
            if !self.connections.contains_key(new) {
                self.left_at.insert(new.clone(), now);
            }
        }
        self.nodes = nodes;
    }

    /// A token was good when the stream began; the Node object may have gone since.
    fn dismiss_unknown_nodes(&mut self) {
        let unknown = self.connections.keys().filter(|node| !self.nodes.contains(*node));
        for node in unknown.cloned().collect::<Vec<_>>() {
            let status = Status::permission_denied(format!("there is no Node object {node}"));
            self.disconnect(&node, Some(status), "node_gone");
            self.left_at.remove(&node);
        }
    }

    fn log_news(&self, diagnostics: &[Diagnostic]) {
        for (severity, word) in
            [(Severity::Info, "info"), (Severity::Warning, "warning"), (Severity::Error, "error")]
        {
            let count = diagnostics.iter().filter(|finding| finding.severity == severity).count();
            self.metrics.diagnostics.get_or_create(&SeverityLabels { severity: word }).set(count as i64);
        }
        for finding in diagnostics.iter().filter(|finding| !self.diagnostics.contains(finding)) {
            match finding.severity {
                Severity::Error => tracing::error!("{finding}"),
                Severity::Warning => tracing::warn!("{finding}"),
                Severity::Info => tracing::info!("{finding}"),
            }
        }
    }

    fn count_stages(&self) {
        let mut counts = [("capturing", 0), ("captured", 0), ("withdrawing", 0), ("releasing", 0)];
        for (_, stage) in self.enrolments.stages() {
            let at = match stage {
                Stage::Capturing => 0,
                Stage::Captured => 1,
                Stage::Withdrawing { .. } => 2,
                Stage::Releasing => 3,
            };
            counts[at].1 += 1;
        }
        for (stage, count) in counts {
            self.metrics.enrolment.get_or_create(&StageLabels { stage }).set(count);
        }
    }

    fn expire(&mut self, now: Instant) {
        let late: Vec<NodeName> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.deadline().is_some_and(|deadline| deadline <= now))
            .map(|(node, _)| node.clone())
            .collect();
        for node in late {
            let status = Status::deadline_exceeded("a delta was not acknowledged for 30 s");
            self.disconnect(&node, Some(status), "ack_timeout");
        }
    }

    fn send(&mut self, now: Instant) {
        let mut broken = Vec::new();
        for (node, connection) in &mut self.connections {
            let Some(delta) = connection.stream.next_delta(&self.picture) else { continue };
            tracing::debug!(
                %node, nonce = delta.nonce, upserts = delta.upserts.len(), removals = delta.removals.len(),
                complete = delta.complete, "delta"
            );
            self.metrics.deltas.inc();
            connection.sent_at = now;
            let message = v1::ControllerMessage { kind: Some(v1::controller_message::Kind::Delta(delta)) };
            // There is room: the delta before was acknowledged, so it was taken out.
            if connection.outbound.try_send(Ok(message)).is_err() {
                broken.push(node.clone());
            }
        }
        for node in broken {
            self.disconnect(&node, None, "broken");
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let acknowledgements = self.connections.values().filter_map(Connection::deadline);
        let waiters = self.waiters.iter().map(|waiter| waiter.deadline);
        let withdrawal = self.enrolments.next_deadline().map(Instant::from_std);
        // A withdrawal also ends when a node that left has been away for long.
        let now = Instant::now();
        let returns = self.left_at.values().map(|left| *left + MAY_RETURN).filter(|until| *until > now);
        // So do a condition that says so and the end of an uninstallation.
        let waits = withdrawal.is_some() || self.is_leaving_still() || !self.outputs.statuses.is_closed();
        let returns = waits.then(|| returns.min()).flatten();
        let memory = self.memory.retry_at();
        acknowledgements.chain(waiters).chain(withdrawal).chain(returns).chain(memory).min()
    }
}

fn wishes(
    resources: &BTreeMap<ResourceKey, Resource>,
    decisions: &BTreeMap<WorkloadUid, EnrolmentDecision>,
) -> BTreeMap<WorkloadUid, Wish> {
    let wish = |resource: &Resource| match resource {
        Resource::Workload(workload) => {
            let wanted = decisions.get(&workload.uid) == Some(&EnrolmentDecision::Wanted);
            Some((workload.uid.clone(), Wish { node: workload.node.clone(), wanted }))
        }
        _ => None,
    };
    resources.values().filter_map(wish).collect()
}

/// What the hand-shake may look at.
struct View<'a> {
    connections: &'a BTreeMap<NodeName, Connection>,
    left_at: &'a HashMap<NodeName, Instant>,
    picture: &'a Picture,
    now: Instant,
}

impl Witness for View<'_> {
    fn capture(&self, node: &NodeName, workload: &WorkloadUid) -> Evidence {
        match self.connections.get(node) {
            Some(connection) => connection.stream.evidence(workload, self.picture),
            None => Evidence::NodeAway,
        }
    }

    fn all_acknowledged(&self, generation: u64) -> bool {
        let connected = self.connections.values().all(|it| it.stream.acked_generation() >= generation);
        let nobody_returns = self.left_at.values().all(|left| *left + MAY_RETURN <= self.now);
        connected && nobody_returns
    }
}

#[cfg(test)]
mod tests;
