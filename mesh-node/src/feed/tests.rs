//! A controller in the test, over real TLS: what is held, acknowledged, refused and reported.

use std::{net::SocketAddr, path::Path, time::Duration};

use mesh_model::{
    mesh::MeshSettings,
    name::{Hostname, Namespace, ServiceKey},
    resource::Resource,
    service::Service,
};
use mesh_proto::{
    encode,
    v1::{
        self, ControllerMessage, Delta, NodeMessage, SignReply, SignRequest, VersionedResource,
        control_server::{Control, ControlServer},
        controller_message, node_message,
    },
};
use rcgen::{CertificateParams, KeyPair};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Identity, Server, ServerTlsConfig},
};

use super::*;
use crate::state;

const SOON: Duration = Duration::from_secs(10);

/// A stream that a node opened: what it says, and where to answer.
struct Stream {
    token: String,
    says: Streaming<NodeMessage>,
    answers: mpsc::Sender<Result<ControllerMessage, Status>>,
}

struct TestController {
    streams: mpsc::Sender<Stream>,
}

#[tonic::async_trait]
impl Control for TestController {
    type SyncStream = ReceiverStream<Result<ControllerMessage, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let token = request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned();
        let (answers, stream) = mpsc::channel(8);
        self.streams.send(Stream { token, says: request.into_inner(), answers }).await.unwrap();
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn sign(&self, _: Request<SignRequest>) -> Result<Response<SignReply>, Status> {
        Err(Status::permission_denied("not here"))
    }
}

impl Stream {
    async fn next(&mut self) -> node_message::Kind {
        timeout(SOON, self.says.message()).await.unwrap().unwrap().unwrap().kind.unwrap()
    }

    async fn hello(&mut self) -> v1::Hello {
        match self.next().await {
            node_message::Kind::Hello(hello) => hello,
            other => panic!("{other:?}"),
        }
    }

    async fn ack(&mut self) -> v1::Ack {
        match self.next().await {
            node_message::Kind::Ack(ack) => ack,
            other => panic!("{other:?}"),
        }
    }

    async fn report(&mut self) -> v1::Report {
        match self.next().await {
            node_message::Kind::Report(report) => report,
            other => panic!("{other:?}"),
        }
    }

    async fn send(&self, delta: Delta) {
        let message = ControllerMessage { kind: Some(controller_message::Kind::Delta(delta)) };
        self.answers.send(Ok(message)).await.unwrap();
    }
}

/// A controller with a certificate of its own, and a node that follows it.
struct Bench {
    streams: mpsc::Receiver<Stream>,
    state: crate::state::State,
    reporter: Reporter,
    link: watch::Receiver<Link>,
    directory: tempfile::TempDir,
}

async fn bench(names: &[&str]) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    std::fs::write(directory.path().join("root.crt"), certificate.pem()).unwrap();
    std::fs::write(directory.path().join("token"), "s3cret\n").unwrap();
    let (streams, opened) = mpsc::channel(4);
    let addr = serve(streams, Identity::from_pem(certificate.pem(), key.serialize_pem())).await;
    let (writer, state) = state::new();
    let reporter = Reporter::new();
    let link = watch::Sender::new(Link { connected: false, since: Instant::now(), last_error: None });
    let seen = link.subscribe();
    let feed = Feed {
        node: NodeName::new("n1"),
        inspect_address: "127.0.0.1:15021".to_owned(),
        controller: controller(addr, directory.path()),
        writer,
        reporter: reporter.clone(),
        limits: Limits::default(),
    };
    let telemetry = Telemetry::new(&Limits::default(), std::io::sink()).unwrap();
    tokio::spawn(async move { feed.run(&telemetry, link).await });
    Bench { streams: opened, state, reporter, link: seen, directory }
}

async fn serve(streams: mpsc::Sender<Stream>, identity: Identity) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity))
        .unwrap()
        .add_service(ControlServer::new(TestController { streams }))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    addr
}

fn controller(addr: SocketAddr, directory: &Path) -> Controller {
    let uri = format!("https://{addr}").parse().unwrap();
    Controller::new(uri, directory.join("root.crt"), directory.join("token"), Limits::default())
}

impl Bench {
    async fn stream(&mut self) -> Stream {
        timeout(SOON, self.streams.recv()).await.unwrap().unwrap()
    }
}

fn service(name: &str) -> Resource {
    Resource::Service(Service {
        key: ServiceKey { namespace: Namespace::new("shop"), host: Hostname::new(name) },
        name: name.to_owned(),
        vips: vec!["10.96.0.7".parse().unwrap()],
        ports: vec![],
    })
}

fn versioned(resource: &Resource, version: u8) -> VersionedResource {
    VersionedResource { version: vec![version; 16].into(), resource: Some(encode::resource(resource)) }
}

#[tokio::test]
async fn a_delta_becomes_a_snapshot_and_is_acknowledged_after_it() {
    let mut bench = bench(&["mesh-controller"]).await;
    let mut stream = bench.stream().await;
    assert_eq!(stream.token, "Bearer s3cret");
    let hello = stream.hello().await;
    assert_eq!((hello.node.as_str(), hello.held.len()), ("n1", 0));
    assert_eq!(hello.inspect_address, "127.0.0.1:15021");
    assert!(!bench.state.is_complete());

    let upserts = vec![versioned(&Resource::Mesh(MeshSettings::default()), 1), versioned(&service("web"), 2)];
    stream.send(Delta { nonce: 7, upserts, removals: vec![], complete: true }).await;
    let ack = stream.ack().await;
    assert_eq!((ack.nonce, ack.refused.len()), (7, 0));
    assert_eq!(ack.generation, bench.state.snapshot().generation());
    assert!(bench.state.is_complete());
    assert!(bench.state.snapshot().service(&Hostname::new("web")).is_some());
    assert!(bench.link.borrow().connected);
}

#[tokio::test]
async fn a_reconnect_says_what_is_held_and_loses_nothing() {
    let mut bench = bench(&["mesh-controller"]).await;
    let mut stream = bench.stream().await;
    stream.hello().await;
    let upserts = vec![versioned(&service("web"), 2), versioned(&service("db"), 3)];
    stream.send(Delta { nonce: 1, upserts, removals: vec![], complete: true }).await;
    stream.ack().await;
    drop(stream);
    // The token was rotated meanwhile.
    std::fs::write(bench.directory.path().join("token"), "fresh").unwrap();

    let mut stream = bench.stream().await;
    assert_eq!(stream.token, "Bearer fresh");
    let hello = stream.hello().await;
    let mut versions: Vec<u8> = hello.held.iter().map(|held| held.version[0]).collect();
    versions.sort_unstable();
    assert_eq!(versions, [2, 3]);
    assert!(bench.state.snapshot().service(&Hostname::new("web")).is_some());

    let removed = encode::key(&service("web").key());
    stream.send(Delta { nonce: 2, upserts: vec![], removals: vec![removed], complete: true }).await;
    stream.ack().await;
    assert!(bench.state.snapshot().service(&Hostname::new("web")).is_none());
    assert!(bench.state.snapshot().service(&Hostname::new("db")).is_some());
}

#[tokio::test]
async fn a_bad_resource_is_refused_by_name_and_its_last_good_form_stays() {
    let mut bench = bench(&["mesh-controller"]).await;
    let mut stream = bench.stream().await;
    stream.hello().await;
    stream
        .send(Delta {
            nonce: 1,
            upserts: vec![versioned(&service("web"), 2)],
            removals: vec![],
            complete: true,
        })
        .await;
    stream.ack().await;

    let mut bad = versioned(&service("web"), 9);
    if let Some(v1::resource::Body::Service(service)) = &mut bad.resource.as_mut().unwrap().body {
        service.vips = vec!["not an address".to_owned()];
    }
    let upserts = vec![bad, versioned(&service("db"), 3)];
    stream.send(Delta { nonce: 2, upserts, removals: vec![], complete: true }).await;
    let ack = stream.ack().await;
    assert_eq!(ack.refused.len(), 1);
    assert_eq!(ack.refused[0].key, Some(encode::key(&service("web").key())));
    assert!(ack.refused[0].error.contains("not an address"), "{}", ack.refused[0].error);
    let snapshot = bench.state.snapshot();
    assert_eq!(snapshot.service(&Hostname::new("web")).unwrap().vips.len(), 1);
    assert!(snapshot.service(&Hostname::new("db")).is_some());
    drop(stream);

    // The good version is still the held one, so the controller will send the next one.
    let hello = bench.stream().await.hello().await;
    let mut versions: Vec<u8> = hello.held.iter().map(|held| held.version[0]).collect();
    versions.sort_unstable();
    assert_eq!(versions, [2, 3]);
}

#[tokio::test]
async fn reports_name_the_delta_they_follow() {
    let mut bench = bench(&["mesh-controller"]).await;
    bench.reporter.report(0, vec![]);
    let mut stream = bench.stream().await;
    stream.hello().await;
    assert_eq!(stream.report().await.nonce, 0);
    stream
        .send(Delta {
            nonce: 41,
            upserts: vec![versioned(&service("web"), 2)],
            removals: vec![],
            complete: true,
        })
        .await;
    let ack = stream.ack().await;
    bench
        .reporter
        .report(ack.generation, vec![WorkloadStatus { uid: "u1".to_owned(), ..WorkloadStatus::default() }]);
    let report = stream.report().await;
    assert_eq!((report.nonce, report.workloads.len()), (41, 1));
    drop(stream);

    // A new stream hears the truth at once; none of its deltas is part of it.
    let mut stream = bench.stream().await;
    stream.hello().await;
    let report = stream.report().await;
    assert_eq!((report.nonce, report.workloads.len()), (0, 1));
}

#[tokio::test]
async fn a_server_with_another_name_is_not_the_controller() {
    let mut bench = bench(&["impostor"]).await;
    timeout(SOON, bench.link.wait_for(|link| link.last_error.is_some())).await.unwrap().unwrap();
    let link = bench.link.borrow().clone();
    assert!(!link.connected);
    assert!(bench.streams.try_recv().is_err(), "the token never left");
}

#[test]
fn a_missing_token_is_named_by_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let controller = controller("127.0.0.1:1".parse().unwrap(), directory.path());
    let error = controller.authorized(()).unwrap_err().to_string();
    assert!(error.starts_with("the node's token ") && error.contains("token: No such file"), "{error}");
}
