//! The Control service: an authenticated node talks to the publisher and to the signer, and to nobody else.
//!
//! Invariant: the node's name comes from its token; every wait for the node has a bound; nothing is buffered beyond one message each
//! way.

use std::{sync::Arc, time::Duration};

use mesh_model::{name::NodeName, resource::ResourceKey};
use mesh_proto::{
    decode,
    v1::{self, control_server::Control, node_message::Kind},
    version::Version,
};
use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    auth::Authenticator,
    ca::Issued,
    metrics::{Metrics, SignLabels},
    publish::{Command, Connect, Said, StreamId},
    sign::{Refused, Signer, Wanted},
};

/// From the stream's beginning to Hello.
const HELLO: Duration = Duration::from_secs(10);
/// Characters of a node's version and address that are kept.
const MAX_WORD: usize = 256;

/// Serves nodes.
pub struct ControlService {
    authenticator: Authenticator,
    publisher: mpsc::Sender<Command>,
    signer: Arc<Signer>,
    metrics: Metrics,
}

impl ControlService {
    /// In front of this publisher and signer.
    pub fn new(
        authenticator: Authenticator,
        publisher: mpsc::Sender<Command>,
        signer: Arc<Signer>,
        metrics: Metrics,
    ) -> Self {
        Self { authenticator, publisher, signer, metrics }
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    type SyncStream = ReceiverStream<Result<v1::ControllerMessage, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<v1::NodeMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let node = self.authenticator.node(request.metadata()).await?;
        // Room for the one delta that is under way and a farewell.
        let (outbound, stream) = mpsc::channel(2);
        let publisher = self.publisher.clone();
        tokio::spawn(async move {
            if let Err(status) = converse(&publisher, node, request.into_inner(), &outbound).await {
                // A node that is gone hears no farewell.
                let _ = outbound.try_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn sign(&self, request: Request<v1::SignRequest>) -> Result<Response<v1::SignReply>, Status> {
        let node = self.authenticator.node(request.metadata()).await?;
        let signed = self.signed(&node, request.into_inner()).await;
        let result = signed.as_ref().map_or_else(Refused::reason, |_| "signed");
        self.metrics.sign.get_or_create(&SignLabels { result }).inc();
        let issued = signed.map_err(|refused| {
            tracing::warn!(%node, reason = refused.reason(), %refused, "signing refused");
            status(&refused)
        })?;
        Ok(Response::new(v1::SignReply {
            chain: vec![issued.certificate.to_vec().into()],
            roots: vec![self.signer.authority().root().to_vec().into()],
            not_before: issued.not_before.unix_timestamp(),
            not_after: issued.not_after.unix_timestamp(),
        }))
    }
}

impl ControlService {
    async fn signed(&self, node: &NodeName, request: v1::SignRequest) -> Result<Issued, Refused> {
        let in_work = self.signer.admit(node)?;
        let wanted = match request.subject {
            Some(v1::sign_request::Subject::Identity(uri)) => Wanted::Workload(uri),
            Some(v1::sign_request::Subject::NodeServer(v1::Unit {})) => Wanted::NodeServer,
            None => Wanted::Workload(String::new()),
        };
        let (signer, asker, asked) = (self.signer.clone(), node.clone(), wanted.clone());
        // Off the streams' threads: a burst of requests must not delay acknowledgements.
        let issued = tokio::task::spawn_blocking(move || {
            let _in_work = in_work;
            signer.sign(&asker, &request.csr, &asked, OffsetDateTime::now_utc())
        })
        .await
        .map_err(|_| Refused::Interrupted)??;
        tracing::info!(%node, ?wanted, not_after = %issued.not_after, "signed");
        Ok(issued)
    }
}

fn status(refused: &Refused) -> Status {
    let text = refused.to_string();
    match refused {
        Refused::MalformedCsr(_) | Refused::Identity(_) => Status::invalid_argument(text),
        Refused::CsrSignature | Refused::KeyType | Refused::TrustDomain { .. } | Refused::NotPlaced(_) => {
            Status::permission_denied(text)
        }
        Refused::Busy(_) => Status::resource_exhausted(text),
        // The details are for our log.
        Refused::Authority(_) | Refused::Interrupted => Status::internal("the authority failed"),
    }
}

/// One stream from Hello to its end.
async fn converse(
    publisher: &mpsc::Sender<Command>,
    node: NodeName,
    mut inbound: Streaming<v1::NodeMessage>,
    outbound: &mpsc::Sender<Result<v1::ControllerMessage, Status>>,
) -> Result<(), Status> {
    let hello = match timeout(HELLO, inbound.message()).await {
        Err(_) => return Err(Status::deadline_exceeded("no Hello within 10 s")),
        Ok(message) => match message?.and_then(|message| message.kind) {
            Some(Kind::Hello(hello)) => hello,
            _ => return Err(Status::invalid_argument("the first message is not Hello")),
        },
    };
    if hello.node != node.as_str() {
        let text = format!("the token is of node {node}, Hello says {:?}", word(&hello.node));
        return Err(Status::permission_denied(text));
    }
    let over = CancellationToken::new();
    let connect = Connect {
        node: node.clone(),
        version: word(&hello.version),
        inspect_address: word(&hello.inspect_address),
        held: held(hello.held),
        outbound: outbound.clone(),
        over: over.clone(),
    };
    let (reply, connected) = oneshot::channel();
    let stopping = || Status::unavailable("the controller is shutting down");
    publisher.send(Command::Connect(connect, reply)).await.map_err(|_| stopping())?;
    let id = connected.await.map_err(|_| stopping())?;
    let listened = tokio::select! {
        listened = listen(publisher, id, &node, &mut inbound) => listened,
        () = over.cancelled() => Ok(()),
    };
    // If this fails there is no publisher that could be told.
    let _ = publisher.send(Command::Gone(id, node)).await;
    listened
}

async fn listen(
    publisher: &mpsc::Sender<Command>,
    id: StreamId,
    node: &NodeName,
    inbound: &mut Streaming<v1::NodeMessage>,
) -> Result<(), Status> {
    while let Some(message) = inbound.message().await? {
        let said = match message.kind {
            Some(Kind::Ack(ack)) => Said::Ack { nonce: ack.nonce, refused: refused(ack.refused) },
            Some(Kind::Report(report)) => Said::Report(report),
            Some(Kind::Hello(_)) => return Err(Status::invalid_argument("a second Hello")),
            // A newer node says something that we do not know.
            None => continue,
        };
        if publisher.send(Command::Heard(id, node.clone(), said)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// What cannot be read is not known to be held: it is sent (or left) as if it were not there.
fn held(items: Vec<v1::HeldResource>) -> std::collections::HashMap<ResourceKey, Version> {
    let read = |item: v1::HeldResource| {
        let key = decode::key(item.key?).ok()?;
        Some((key, Version::try_from(&*item.version).ok()?))
    };
    items.into_iter().filter_map(read).collect()
}

fn refused(items: Vec<v1::Refused>) -> Vec<(ResourceKey, String)> {
    let read = |item: v1::Refused| Some((decode::key(item.key?).ok()?, item.error));
    items.into_iter().filter_map(read).collect()
}

fn word(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(MAX_WORD).collect()
}
