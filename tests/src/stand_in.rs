//! A test in the part of a node: it takes the stream, acknowledges, and says that every workload of its is captured.
//!
//! For tests about a node that lies. It captures nothing; whatever it says about its workloads is what the test wants
//! the others to believe.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mesh_proto::v1;
use mesh_proto::v1::control_client::ControlClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::world::{World, bearer};

/// How often the stand-in looks whether it shall end.
const TICK: Duration = Duration::from_millis(50);

/// A connected stand-in; dropping it disconnects.
#[derive(Debug)]
pub struct NodeStandIn {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl NodeStandIn {
    /// Connects as a node of `world` that has no agent.
    pub fn start(world: &World, node: u8) -> Result<Self> {
        let (token, link) = (world.node_token(node)?, world.control_link()?);
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let name = format!("node-{node}");
        let thread = std::thread::spawn(move || link.run(|channel| serve(channel, name, token, stopping)));
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for NodeStandIn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("the stand-in failed: {error:#}");
        }
    }
}

async fn serve(channel: Channel, node: String, token: String, stop: Arc<AtomicBool>) -> Result<()> {
    let (sender, receiver) = mpsc::channel(16);
    let say =
        async |kind| sender.send(v1::NodeMessage { kind: Some(kind) }).await.context("the stream is gone");
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let hello = v1::Hello { node: node.clone(), version, ..v1::Hello::default() };
    say(v1::node_message::Kind::Hello(hello)).await?;
    let mut request = tonic::Request::new(ReceiverStream::new(receiver));
    request.metadata_mut().insert("authorization", bearer(&token)?);
    let mut deltas = ControlClient::new(channel).sync(request).await?.into_inner();
    let mut workloads: Vec<String> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Ok(message) = tokio::time::timeout(TICK, deltas.message()).await else { continue };
        let Some(v1::controller_message::Kind::Delta(delta)) = message?.and_then(|message| message.kind)
        else {
            bail!("the controller ended the stream");
        };
        let mine =
            delta.upserts.iter().filter_map(|upsert| match upsert.resource.as_ref()?.body.as_ref()? {
                v1::resource::Body::Workload(workload) if workload.node == node => Some(workload.uid.clone()),
                _ => None,
            });
        workloads.extend(mine);
        workloads.sort();
        workloads.dedup();
        say(v1::node_message::Kind::Ack(v1::Ack { nonce: delta.nonce, ..v1::Ack::default() })).await?;
        let captured = |uid: &String| v1::WorkloadStatus {
            uid: uid.clone(),
            state: v1::CaptureState::Captured.into(),
            ..v1::WorkloadStatus::default()
        };
        let report = v1::Report { workloads: workloads.iter().map(captured).collect(), nonce: delta.nonce };
        say(v1::node_message::Kind::Report(report)).await?;
    }
    Ok(())
}
