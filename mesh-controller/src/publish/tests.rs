//! Time-outs and answers of the publisher, on a paused clock.

use mesh_api::parse;
use tokio::sync::{oneshot, watch};
use tonic::Code;

use super::{connection::ACKNOWLEDGE, *};
use crate::auth::Roster;

struct Bench {
    commands: mpsc::Sender<Command>,
    readiness: watch::Receiver<Readiness>,
    stop: CancellationToken,
    statuses: watch::Receiver<Option<Arc<Statuses>>>,
    state: tempfile::TempDir,
}

type Inbox = mpsc::Receiver<Result<v1::ControllerMessage, Status>>;

impl Bench {
    async fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let (placement, _) = watch::channel(Arc::default());
        let (readiness, ready) = watch::channel(Readiness::default());
        let (names, _) = watch::channel(None);
        let (statuses, said) = watch::channel(None);
        let outputs = Outputs { placement, roster: Roster::Names(names), readiness, statuses };
        let memory = Memory::open(state.path()).unwrap();
        let facts = Facts { source: String::new(), ca_not_after: String::new() };
        let publisher = Publisher::new(Options::default(), facts, memory, Metrics::new(), outputs);
        let (commands, received) = mpsc::channel(COMMANDS);
        let stop = CancellationToken::new();
        tokio::spawn(publisher.run(received, stop.clone()));
        Self { commands, readiness: ready, stop, statuses: said, state }
    }

    async fn files(&self, texts: &[(&str, &str)]) {
        let parsed = texts.iter().map(|(name, text)| parse(name, text)).collect();
        let changes = Changes { parsed, ..Changes::default() };
        self.commands.send(Command::Source(changes)).await.unwrap();
    }

    async fn connect(&self, node: &str) -> (StreamId, Inbox) {
        let (outbound, inbox) = mpsc::channel(2);
        let connect = Connect {
            node: NodeName::new(node),
            version: String::new(),
            held: HashMap::new(),
            inspect_address: String::new(),
            outbound,
            over: CancellationToken::new(),
        };
        let (reply, connected) = oneshot::channel();
        self.commands.send(Command::Connect(connect, reply)).await.unwrap();
        (connected.await.unwrap(), inbox)
    }

    async fn settle(&self, bound: Duration) -> v1::SettleReply {
        let (reply, settled) = oneshot::channel();
        self.commands.send(Command::Settle(Instant::now() + bound, reply)).await.unwrap();
        settled.await.unwrap()
    }
}

const NODES: (&str, &str) = (
    "nodes.yaml",
    "apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: node-2}\n",
);

async fn delta(inbox: &mut Inbox) -> v1::Delta {
    match inbox.recv().await.unwrap().unwrap().kind {
        Some(v1::controller_message::Kind::Delta(delta)) => delta,
        None => panic!("no delta"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_acknowledge_loses_its_stream_and_no_other_does() {
    let bench = Bench::start().await;
    bench.files(&[NODES]).await;
    let (_, mut silent_inbox) = bench.connect("node-1").await;
    let (polite, mut polite_inbox) = bench.connect("node-2").await;
    let nonce = delta(&mut polite_inbox).await.nonce;
    let ack = Said::Ack { nonce, refused: vec![] };
    bench.commands.send(Command::Heard(polite, NodeName::new("node-2"), ack)).await.unwrap();
    delta(&mut silent_inbox).await;
    let began = Instant::now();
    let end = silent_inbox.recv().await.unwrap().unwrap_err();
    assert_eq!(end.code(), Code::DeadlineExceeded);
    assert_eq!(Instant::now().duration_since(began).as_secs(), ACKNOWLEDGE.as_secs());
    let reply = bench.settle(Duration::from_secs(1)).await;
    assert!(reply.settled);
    assert_eq!(reply.pending, ["node-1 not connected"]);
}

#[tokio::test(start_paused = true)]
async fn settle_answers_at_its_deadline_with_what_is_awaited() {
    let bench = Bench::start().await;
    bench.files(&[NODES]).await;
    let (_, mut inbox) = bench.connect("node-1").await;
    delta(&mut inbox).await;
    let began = Instant::now();
    let reply = bench.settle(Duration::from_secs(7)).await;
    assert_eq!(Instant::now().duration_since(began).as_secs(), 7);
    assert!(!reply.settled);
    assert_eq!(reply.pending, ["node-1 has not acknowledged delta 1 (generation 1)", "node-2 not connected"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_before_the_source_was_read() {
    let bench = Bench::start().await;
    let unreadable = Changes { unreadable: Some("no such directory".to_owned()), ..Default::default() };
    bench.commands.send(Command::Source(unreadable)).await.unwrap();
    let (_, mut inbox) = bench.connect("node-1").await;
    let reply = bench.settle(Duration::from_secs(1)).await;
    assert!(!reply.settled);
    assert!(reply.pending[0].contains("has not been read"), "{:?}", reply.pending);
    assert!(inbox.try_recv().is_err());
    assert!(!bench.readiness.borrow().compiled);
    bench.files(&[NODES]).await;
    delta(&mut inbox).await;
    assert!(bench.readiness.borrow().compiled);
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_a_node_refuses_keeps_settle_waiting() {
    let bench = Bench::start().await;
    bench.files(&[NODES]).await;
    let (id, mut inbox) = bench.connect("node-1").await;
    let delta = delta(&mut inbox).await;
    let resource = delta.upserts[0].resource.clone().unwrap();
    let key = mesh_proto::decode::resource(resource).unwrap().key();
    let ack = Said::Ack { nonce: delta.nonce, refused: vec![(key, "too new for me".to_owned())] };
    bench.commands.send(Command::Heard(id, NodeName::new("node-1"), ack)).await.unwrap();
    let reply = bench.settle(Duration::from_secs(1)).await;
    assert!(!reply.settled);
    assert!(reply.pending[0].ends_with("too new for me"), "{:?}", reply.pending);
}

#[tokio::test(start_paused = true)]
async fn a_violation_ends_the_stream() {
    let bench = Bench::start().await;
    bench.files(&[NODES]).await;
    let (id, mut inbox) = bench.connect("node-1").await;
    delta(&mut inbox).await;
    let ack = Said::Ack { nonce: 99, refused: vec![] };
    bench.commands.send(Command::Heard(id, NodeName::new("node-1"), ack)).await.unwrap();
    let end = inbox.recv().await.unwrap().unwrap_err();
    assert_eq!(end.code(), Code::InvalidArgument);
    // What the old stream says later concerns nobody.
    let late = Said::Ack { nonce: 1, refused: vec![] };
    bench.commands.send(Command::Heard(id, NodeName::new("node-1"), late)).await.unwrap();
    let (_, mut again) = bench.connect("node-1").await;
    delta(&mut again).await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_node_is_told_so() {
    let bench = Bench::start().await;
    bench.files(&[NODES]).await;
    bench.settle(Duration::from_secs(1)).await;
    let (_, mut inbox) = bench.connect("node-9").await;
    assert_eq!(inbox.recv().await.unwrap().unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(start_paused = true)]
async fn a_farewell_at_shutdown() {
    let bench = Bench::start().await;
    bench.files(&[NODES]).await;
    let (_, mut inbox) = bench.connect("node-1").await;
    delta(&mut inbox).await;
    bench.stop.cancel();
    assert_eq!(inbox.recv().await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert!(inbox.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_trust_domain_that_is_not_the_authoritys_is_a_finding() {
    let bench = Bench::start().await;
    bench.files(&[NODES, ("mesh.yaml", "trustDomain: elsewhere.example\n")]).await;
    let reply = bench.settle(Duration::from_secs(1)).await;
    let finding = reply.diagnostics.iter().find(|finding| finding.field == "trustDomain").unwrap();
    assert!(finding.message.contains("elsewhere.example"), "{finding:?}");
}

const POD: (&str, &str) = (
    "pod.yaml",
    "apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {tulle.dev/mesh: enabled}}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop, uid: a}
spec: {nodeName: node-1, serviceAccountName: a, containers: [{name: app, image: x}]}
status: {phase: Running, podIP: 10.1.0.1}
",
);

/// Takes every delta of node-1, acknowledges it and reports the pod as captured; returns the pod's tunnels as they were told.
async fn tunnels(bench: &Bench, id: StreamId, inbox: &mut Inbox) -> Vec<v1::Tunnel> {
    let mut told = Vec::new();
    let node = || NodeName::new("node-1");
    while let Ok(Some(Ok(message))) = tokio::time::timeout(Duration::from_secs(1), inbox.recv()).await {
        let Some(v1::controller_message::Kind::Delta(delta)) = message.kind else { continue };
        for item in delta.upserts {
            if let Some(v1::resource::Body::Workload(workload)) = item.resource.and_then(|it| it.body) {
                told.push(workload.tunnel());
            }
        }
        let ack = Said::Ack { nonce: delta.nonce, refused: vec![] };
        bench.commands.send(Command::Heard(id, node(), ack)).await.unwrap();
        let captured = v1::WorkloadStatus {
            uid: "a".to_owned(),
            state: v1::CaptureState::Captured.into(),
            ..v1::WorkloadStatus::default()
        };
        let report = Said::Report(v1::Report { workloads: vec![captured], nonce: delta.nonce });
        bench.commands.send(Command::Heard(id, node(), report)).await.unwrap();
    }
    told
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_remembered_is_not_called_hbone() {
    let bench = Bench::start().await;
    let place = bench.state.path().to_owned();
    std::fs::remove_dir(&place).unwrap();
    bench.files(&[NODES, POD]).await;
    let (id, mut inbox) = bench.connect("node-1").await;
    assert_eq!(tunnels(&bench, id, &mut inbox).await, [v1::Tunnel::None]);

    std::fs::create_dir(&place).unwrap();
    // Nothing happens but time.
    let message = inbox.recv().await.unwrap().unwrap();
    let Some(v1::controller_message::Kind::Delta(delta)) = message.kind else { panic!("no delta") };
    let workload = delta.upserts[0].resource.clone().unwrap().body.unwrap();
    assert!(matches!(workload, v1::resource::Body::Workload(it) if it.tunnel() == v1::Tunnel::Hbone));
    let remembered = std::fs::read_to_string(place.join("published.json")).unwrap();
    assert_eq!(remembered, "[\"a\"]", "before the node was told");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_was_read_in_part_is_not_compiled() {
    let bench = Bench::start().await;
    let partial = Changes { parsed: vec![parse(NODES.0, NODES.1)], partial: true, ..Changes::default() };
    bench.commands.send(Command::Source(partial)).await.unwrap();
    let (_, mut inbox) = bench.connect("node-1").await;
    assert!(!bench.settle(Duration::from_secs(1)).await.settled);
    assert!(inbox.try_recv().is_err() && !bench.readiness.borrow().compiled);
    bench.commands.send(Command::Source(Changes::default())).await.unwrap();
    delta(&mut inbox).await;
    // Later a kind may come that is listed anew: what is there stays in force.
    let away = Changes { partial: true, unreadable: Some("away".to_owned()), ..Changes::default() };
    bench.commands.send(Command::Source(away)).await.unwrap();
    bench.settle(Duration::from_secs(1)).await;
    let readiness = bench.readiness.borrow().clone();
    assert_eq!((readiness.compiled, readiness.source_error), (true, Some("away".to_owned())));
}

/// Of the only condition.
fn message(bench: &Bench) -> String {
    let statuses = bench.statuses.borrow().clone().unwrap();
    statuses.pods.values().next().map(|pod| pod.verdict.message.clone()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_told_how_far_it_is_and_that_its_node_is_away_only_after_a_while() {
    let bench = Bench::start().await;
    let mut told = bench.statuses.clone();
    bench.files(&[NODES, POD]).await;
    let mut reason = async move || {
        // The clock stands still until everybody waits: what was sent has been worked on by then.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let statuses = told.borrow_and_update().clone().unwrap();
        statuses.pods.values().next().map(|pod| (pod.verdict.status, pod.verdict.reason))
    };
    assert_eq!(reason().await, Some(("Unknown", "NodeAway")));
    let (id, mut inbox) = bench.connect("node-1").await;
    assert_eq!(reason().await, Some(("False", "Capturing")));
    assert_eq!(message(&bench), "waiting for the agent of node node-1");
    let first = delta(&mut inbox).await.nonce;
    let node = || NodeName::new("node-1");
    bench
        .commands
        .send(Command::Heard(id, node(), Said::Ack { nonce: first, refused: vec![] }))
        .await
        .unwrap();
    let not_yet = v1::WorkloadStatus {
        uid: "a".to_owned(),
        state: v1::CaptureState::NotCaptured.into(),
        reason: "it awaits its network".to_owned(),
        ..v1::WorkloadStatus::default()
    };
    let report = Said::Report(v1::Report { workloads: vec![not_yet], nonce: first });
    bench.commands.send(Command::Heard(id, node(), report)).await.unwrap();
    assert_eq!(reason().await, Some(("False", "Capturing")));
    assert_eq!(message(&bench), "waiting for the agent of node node-1: it awaits its network");
    let captured = v1::WorkloadStatus {
        uid: "a".to_owned(),
        state: v1::CaptureState::Captured.into(),
        ..v1::WorkloadStatus::default()
    };
    let report = Said::Report(v1::Report { workloads: vec![captured], nonce: first });
    bench.commands.send(Command::Heard(id, node(), report)).await.unwrap();
    assert_eq!(tunnels(&bench, id, &mut inbox).await, [v1::Tunnel::Hbone]);
    assert_eq!(reason().await, Some(("True", "Captured")));

    bench.commands.send(Command::Gone(id, NodeName::new("node-1"))).await.unwrap();
    assert_eq!(reason().await, Some(("True", "Captured")), "an agent that starts again is no news");
    tokio::time::sleep(MAY_RETURN).await;
    assert_eq!(reason().await, Some(("Unknown", "NodeAway")));

    let opted_out = POD.1.replace("enabled", "disabled");
    bench.files(&[("pod.yaml", &opted_out)]).await;
    assert_eq!(reason().await, None, "what was said is taken back");
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_is_known_to_its_node_by_its_own_uid_and_told_by_that_of_its_copy() {
    let bench = Bench::start().await;
    let mut told = bench.statuses.clone();
    let copy = "apiVersion: v1\nkind: Pod\nmetadata: {name: static-node-1, namespace: shop, uid: copy, labels: {tulle.dev/mesh: enabled}, annotations: {kubernetes.io/config.mirror: abcd, kubernetes.io/config.hash: abcd}}\nspec: {nodeName: node-1, containers: [{name: app, image: x}]}\n";
    bench.files(&[NODES, ("static.yaml", copy)]).await;
    let (_, mut inbox) = bench.connect("node-1").await;
    let delta = delta(&mut inbox).await;
    let workloads: Vec<_> = delta
        .upserts
        .into_iter()
        .filter_map(|item| match item.resource?.body? {
            v1::resource::Body::Workload(workload) => Some((workload.uid, workload.enrolled)),
            _ => None,
        })
        .collect();
    assert_eq!(workloads, [("abcd".to_owned(), false)]);
    let statuses = told.borrow_and_update().clone().unwrap();
    let said: Vec<_> = statuses.pods.iter().map(|(uid, pod)| (uid.as_str(), pod.verdict.reason)).collect();
    assert_eq!(said, [("copy", "EnrolmentRefused")]);
}

#[tokio::test(start_paused = true)]
async fn leaving_is_over_when_every_node_has_let_go() {
    let bench = Bench::start().await;
    let mut told = bench.statuses.clone();
    bench.files(&[NODES]).await;
    let (id, mut inbox) = bench.connect("node-1").await;
    let first = delta(&mut inbox).await;
    bench.commands.send(Command::Leaving(true)).await.unwrap();
    let mut left = async move || {
        tokio::time::sleep(Duration::from_millis(1)).await;
        told.borrow_and_update().clone().unwrap().left
    };
    assert!(!left().await, "node-1 has not acknowledged");
    let findings = async || {
        let (reply, status) = oneshot::channel();
        bench.commands.send(Command::Status(reply)).await.unwrap();
        let findings = status.await.unwrap().diagnostics;
        findings.into_iter().map(|finding| (finding.code.clone(), finding.severity())).collect::<Vec<_>>()
    };
    assert_eq!(findings().await, [("MESH0070".to_owned(), v1::Severity::Error)]);
    let node = || NodeName::new("node-1");
    let mut nonce = first.nonce;
    loop {
        let ack = Said::Ack { nonce, refused: vec![] };
        bench.commands.send(Command::Heard(id, node(), ack)).await.unwrap();
        let report = Said::Report(v1::Report { workloads: vec![], nonce });
        bench.commands.send(Command::Heard(id, node(), report)).await.unwrap();
        match tokio::time::timeout(Duration::from_secs(1), delta(&mut inbox)).await {
            Ok(next) => nonce = next.nonce,
            Err(_) => break,
        }
    }
    tokio::time::sleep(MAY_RETURN).await;
    assert!(left().await, "node-2 never came, and is not waited for any longer");
    bench.commands.send(Command::Leaving(false)).await.unwrap();
    assert!(!left().await);
    assert_eq!(findings().await, []);
}
