//! A controller on loopback, and nodes that apply, acknowledge and report like the real one.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser;
use mesh_model::resource::ResourceKey;
use mesh_proto::{
    decode, encode,
    v1::{
        self, control_client::ControlClient, inspect_client::InspectClient, node_message::Kind,
        resource::Body,
    },
};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::super::{App, AppError};
use crate::config::Config;

pub type File = (&'static str, &'static str);

pub const NODE_1: File = ("node-1.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: node-1}\n");
pub const NODE_2: File = ("node-2.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: node-2}\n");
pub const POD_A: File = (
    "pod-a.yaml",
    "apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop, annotations: {tulle.dev/netns: /run/netns/tl-a}}
spec: {nodeName: node-1, serviceAccountName: a, containers: [{name: app, image: x}]}
status: {phase: Running, podIP: 10.1.0.1}
",
);
pub const POD_B: File = (
    "pod-b.yaml",
    "apiVersion: v1
kind: Pod
metadata: {name: b, namespace: shop}
spec: {nodeName: node-2, serviceAccountName: b, containers: [{name: app, image: x}]}
status: {phase: Running, podIP: 10.1.0.2}
",
);

/// What a node answers to "shall be captured"; None: nothing yet.
pub type Capture = fn(&v1::Workload) -> Option<(v1::CaptureState, &'static str)>;

pub fn captures(_: &v1::Workload) -> Option<(v1::CaptureState, &'static str)> {
    Some((v1::CaptureState::Captured, ""))
}

pub fn refuses(_: &v1::Workload) -> Option<(v1::CaptureState, &'static str)> {
    Some((v1::CaptureState::Refused, "no such netns"))
}

pub fn workload(item: v1::VersionedResource) -> Option<v1::Workload> {
    match item.resource?.body? {
        Body::Workload(workload) => Some(workload),
        _ => None,
    }
}

#[derive(Clone)]
pub struct Bearer(String);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if !self.0.is_empty() {
            let value = format!("Bearer {}", self.0);
            request.metadata_mut().insert("authorization", MetadataValue::try_from(value).unwrap());
        }
        Ok(request)
    }
}

type Authenticated = InterceptedService<Channel, Bearer>;

pub struct Bench {
    root: tempfile::TempDir,
    address: SocketAddr,
    stop: CancellationToken,
    running: JoinHandle<Result<(), AppError>>,
}

impl Bench {
    pub async fn start(files: &[File]) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("mesh")).unwrap();
        for (name, text) in files {
            fs::write(root.path().join("mesh").join(name), text).unwrap();
        }
        let (address, stop, running) = launch(root.path()).await;
        let bench = Self { root, address, stop, running };
        bench.label("shop", "disabled");
        bench.ready().await;
        bench
    }

    /// Ends the process's half and starts another on the same state.
    pub async fn restart(&mut self) {
        self.stop.cancel();
        (&mut self.running).await.unwrap().unwrap();
        (self.address, self.stop, self.running) = launch(self.root.path()).await;
        self.ready().await;
    }

    pub async fn stop(self) {
        self.stop.cancel();
        timeout(Duration::from_secs(10), self.running).await.unwrap().unwrap().unwrap();
    }

    async fn ready(&self) {
        // Its files appear with the first compilation; until then callers are told to come again.
        for _ in 0..200 {
            if self.root.path().join("state/admin.token").exists() {
                let mut inspect = self.inspect(&self.token("admin.token")).await;
                if inspect.status(v1::StatusRequest {}).await.is_ok() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the controller does not become ready");
    }

    pub fn directory(&self) -> PathBuf {
        self.root.path().join("mesh")
    }

    pub fn write(&self, name: &str, text: &str) {
        let temporary = self.directory().join(".new");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.directory().join(name)).unwrap();
    }

    pub fn label(&self, namespace: &str, mesh: &str) {
        let text = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, labels: {{tulle.dev/mesh: {mesh}}}}}\n"
        );
        self.write("namespace.yaml", &text);
    }

    pub fn token(&self, file: &str) -> String {
        fs::read_to_string(self.root.path().join("state").join(file)).unwrap()
    }

    async fn channel(&self) -> Channel {
        let root = fs::read(self.root.path().join("state/root.crt")).unwrap();
        let tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(root)).domain_name("mesh-controller");
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await.unwrap()
    }

    pub async fn inspect(&self, token: &str) -> InspectClient<Authenticated> {
        InspectClient::with_interceptor(self.channel().await, Bearer(token.to_owned()))
    }

    async fn control(&self, token: &str) -> ControlClient<Authenticated> {
        ControlClient::with_interceptor(self.channel().await, Bearer(token.to_owned()))
    }

    pub async fn settle(&self) -> v1::SettleReply {
        self.settle_for(15_000).await
    }

    pub async fn settle_for(&self, timeout_ms: u64) -> v1::SettleReply {
        let mut inspect = self.inspect(&self.token("admin.token")).await;
        inspect.settle(v1::SettleRequest { timeout_ms }).await.unwrap().into_inner()
    }

    pub async fn status(&self) -> v1::StatusReply {
        let mut inspect = self.inspect(&self.token("admin.token")).await;
        inspect.status(v1::StatusRequest {}).await.unwrap().into_inner()
    }

    /// Asks for `spiffe://cluster.local/ns/shop/sa/<account>`, or for the node's server certificate.
    pub async fn sign(&self, node: &str, account: Option<&str>) -> Result<v1::SignReply, Status> {
        use v1::sign_request::Subject;
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let subject = match account {
            Some(account) => Subject::Identity(format!("spiffe://cluster.local/ns/shop/sa/{account}")),
            None => Subject::NodeServer(v1::Unit {}),
        };
        let request = v1::SignRequest { csr: csr.der().to_vec().into(), subject: Some(subject) };
        let mut control = self.control(&self.token(&format!("nodes/{node}.token"))).await;
        Ok(control.sign(request).await?.into_inner())
    }

    /// How the controller answers a stream with this token and Hello.
    pub async fn sync_with(&self, token: &str, node: &str) -> Result<(), Status> {
        let (say, said) = mpsc::channel(4);
        say.send(hello(node, vec![])).await.unwrap();
        let mut control = self.control(token).await;
        let mut stream = control.sync(ReceiverStream::new(said)).await?.into_inner();
        stream.message().await.map(drop)
    }

    pub async fn node(&self, name: &str, capture: Capture) -> Node {
        self.node_with(name, capture, vec![]).await
    }

    pub async fn node_with(&self, name: &str, capture: Capture, held: Vec<v1::VersionedResource>) -> Node {
        let (say, said) = mpsc::channel(4);
        let keys = held.iter().map(|item| v1::HeldResource {
            key: Some(encode::key(&key_of(item))),
            version: item.version.clone(),
        });
        say.send(hello(name, keys.collect())).await.unwrap();
        let mut control = self.control(&self.token(&format!("nodes/{name}.token"))).await;
        let mut stream = control.sync(ReceiverStream::new(said)).await.unwrap().into_inner();
        let world = Arc::new(Mutex::new(World {
            resources: held.into_iter().map(|item| (key_of(&item), item)).collect(),
            ..World::default()
        }));
        let (seen, own) = (world.clone(), name.to_owned());
        let task = tokio::spawn(async move {
            loop {
                let delta = match stream.message().await {
                    Ok(Some(v1::ControllerMessage {
                        kind: Some(v1::controller_message::Kind::Delta(delta)),
                    })) => delta,
                    Ok(_) => return None,
                    Err(status) => return Some(status),
                };
                let nonce = delta.nonce;
                let report = seen.lock().unwrap().apply(delta, &own, capture);
                let ack = Kind::Ack(v1::Ack { nonce, refused: vec![], generation: nonce });
                if say.send(v1::NodeMessage { kind: Some(ack) }).await.is_err() {
                    return None;
                }
                let report = Kind::Report(v1::Report { workloads: report, nonce });
                let _ = say.send(v1::NodeMessage { kind: Some(report) }).await;
            }
        });
        Node { world, task }
    }
}

async fn launch(root: &Path) -> (SocketAddr, CancellationToken, JoinHandle<Result<(), AppError>>) {
    let source = format!("--source=dir:{}", root.join("mesh").display());
    let state = format!("--state={}", root.join("state").display());
    let arguments = ["mesh-controller", &source, &state, "--listen=127.0.0.1:0", "--admin=127.0.0.1:0"];
    let app = App::prepare(Config::try_parse_from(arguments).unwrap()).await.unwrap();
    let address = app.listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    (address, stop.clone(), tokio::spawn(app.run(stop)))
}

fn hello(node: &str, held: Vec<v1::HeldResource>) -> v1::NodeMessage {
    let hello = v1::Hello {
        node: node.to_owned(),
        version: "0.1.0".to_owned(),
        held,
        inspect_address: "127.0.0.1:1".to_owned(),
    };
    v1::NodeMessage { kind: Some(Kind::Hello(hello)) }
}

fn key_of(item: &v1::VersionedResource) -> ResourceKey {
    decode::resource(item.resource.clone().unwrap()).unwrap().key()
}

#[derive(Default)]
struct World {
    resources: HashMap<ResourceKey, v1::VersionedResource>,
    complete: bool,
    received: usize,
    /// Every state that each workload went through: (enrolled, HBONE, what we had reported).
    history: HashMap<String, Vec<(bool, bool, Option<v1::CaptureState>)>>,
    reported: HashMap<String, v1::CaptureState>,
}

impl World {
    fn apply(&mut self, delta: v1::Delta, own: &str, capture: Capture) -> Vec<v1::WorkloadStatus> {
        for key in delta.removals {
            self.resources.remove(&decode::key(key).unwrap());
        }
        for item in delta.upserts {
            self.received += 1;
            if let Some(workload) = workload(item.clone()) {
                let hbone = workload.tunnel() == v1::Tunnel::Hbone;
                let reported = self.reported.get(&workload.uid).copied();
                self.history.entry(workload.uid).or_default().push((workload.enrolled, hbone, reported));
            }
            self.resources.insert(key_of(&item), item);
        }
        self.complete |= delta.complete;
        let mine =
            self.resources.values().cloned().filter_map(workload).filter(|workload| workload.node == own);
        let mut report = Vec::new();
        for workload in mine {
            let (state, reason) = match workload.enrolled {
                true => capture(&workload).unwrap_or((v1::CaptureState::NotCaptured, "")),
                false => (v1::CaptureState::NotCaptured, ""),
            };
            report.push(v1::WorkloadStatus {
                uid: workload.uid,
                state: state.into(),
                reason: reason.to_owned(),
                uncaptured_connections: 0,
            });
        }
        self.reported = report.iter().map(|status| (status.uid.clone(), status.state())).collect();
        report
    }
}

/// A connected node; it disconnects when dropped.
pub struct Node {
    world: Arc<Mutex<World>>,
    task: JoinHandle<Option<Status>>,
}

impl Node {
    pub fn workload(&self, name: &str) -> Option<v1::Workload> {
        let world = self.world.lock().unwrap();
        world.resources.values().cloned().filter_map(workload).find(|workload| workload.name == name)
    }

    pub fn complete(&self) -> bool {
        self.world.lock().unwrap().complete
    }

    /// Resources sent to it.
    pub fn received(&self) -> usize {
        self.world.lock().unwrap().received
    }

    pub fn held(&self) -> Vec<v1::VersionedResource> {
        self.world.lock().unwrap().resources.values().cloned().collect()
    }

    /// Of its own workloads.
    pub fn never_hbone_before_captured(&self) -> Result<(), String> {
        let world = self.world.lock().unwrap();
        for uid in world.reported.keys() {
            for (_, hbone, reported) in &world.history[uid] {
                if *hbone && *reported != Some(v1::CaptureState::Captured) {
                    return Err(format!("{uid}: {:?}", world.history[uid]));
                }
            }
        }
        Ok(())
    }

    /// HBONE is withdrawn first, and only then is the capture ended.
    pub fn never_released_while_hbone(&self, name: &str) -> Result<(), String> {
        let uid = self.workload(name).unwrap().uid;
        let world = self.world.lock().unwrap();
        let stages: Vec<(bool, bool)> =
            world.history[&uid].iter().map(|(on, hbone, _)| (*on, *hbone)).collect();
        let ordered = stages.windows(2).all(|pair| pair != [(true, true), (false, false)]);
        ordered.then_some(()).ok_or(format!("{stages:?}"))
    }

    /// How the controller ended the stream.
    pub async fn end(mut self) -> Option<Status> {
        timeout(Duration::from_secs(5), &mut self.task).await.unwrap().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}
