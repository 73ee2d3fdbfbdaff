//! Time-outs and answers of the publisher, on a paused clock.

use mesh_api::parse;
use tokio::sync::{oneshot, watch};
use tonic::Code;

use super::{connection::ACKNOWLEDGE, *};

struct Bench {
    commands: mpsc::Sender<Command>,
    readiness: watch::Receiver<Readiness>,
    stop: CancellationToken,
    _state: tempfile::TempDir,
}

type Inbox = mpsc::Receiver<Result<v1::ControllerMessage, Status>>;

impl Bench {
    async fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let (placement, _) = watch::channel(Arc::default());
        let (tokens, _) = watch::channel(Arc::default());
        let (readiness, ready) = watch::channel(Readiness::default());
        let outputs = Outputs { placement, tokens, readiness };
        let memory = Memory::open(state.path()).unwrap();
        let facts = Facts { source: String::new(), ca_not_after: String::new() };
        let publisher = Publisher::new(
            Options::default(),
            facts,
            TokenFiles::new(state.path()),
            memory,
            Metrics::new(),
            outputs,
        );
        let (commands, received) = mpsc::channel(COMMANDS);
        let stop = CancellationToken::new();
        tokio::spawn(publisher.run(received, stop.clone()));
        Self { commands, readiness: ready, stop, _state: state }
    }

    async fn files(&self, texts: &[(&str, &str)]) {
        let parsed = texts.iter().map(|(name, text)| parse(name, text)).collect();
        let changes = FileChanges { parsed, ..FileChanges::default() };
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
    let unreadable = FileChanges { unreadable: Some("no such directory".to_owned()), ..Default::default() };
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
