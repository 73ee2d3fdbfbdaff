//! The Inspect service: what meshctl and tests ask, for whoever has the administrator's token.
//!
//! Invariant: nothing here changes the mesh; `Settle` only makes the next look at the source come now.

use std::{sync::Arc, time::Duration};

use mesh_model::name::NodeName;
use mesh_proto::v1::{self, inspect_server::Inspect};
use time::OffsetDateTime;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};
use tonic::{Request, Response, Status};

use crate::{
    auth::Authenticator, ca::Subject, grant::Granter, publish::Command, sign::Signer, source::Rescan,
};

/// `Settle` without a time-out.
const SETTLE_DEFAULT: Duration = Duration::from_secs(30);
/// The longest that `Settle` waits.
const SETTLE_MOST: Duration = Duration::from_secs(600);
/// How long the publisher may take to answer what it can answer at once.
const ANSWER: Duration = Duration::from_secs(10);

/// Serves people.
pub struct InspectService {
    authenticator: Authenticator,
    publisher: mpsc::Sender<Command>,
    rescan: Rescan,
    granter: Arc<Granter>,
    signer: Arc<Signer>,
}

impl InspectService {
    /// In front of this publisher and source.
    pub fn new(
        authenticator: Authenticator,
        publisher: mpsc::Sender<Command>,
        rescan: Rescan,
        granter: Arc<Granter>,
        signer: Arc<Signer>,
    ) -> Self {
        Self { authenticator, publisher, rescan, granter, signer }
    }

    async fn ask<T>(
        &self,
        deadline: Instant,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            let stopping = || Status::unavailable("the controller is shutting down, or has too many callers");
            self.publisher.send(command(reply)).await.map_err(|_| stopping())?;
            answer.await.map_err(|_| stopping())
        };
        timeout_at(deadline, asked).await.map_err(|_| Status::deadline_exceeded("the publisher is busy"))?
    }
}

#[tonic::async_trait]
impl Inspect for InspectService {
    async fn status(&self, request: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        self.authenticator.admin(request.metadata()).await?;
        self.ask(Instant::now() + ANSWER, Command::Status).await.map(Response::new)
    }

    async fn settle(&self, request: Request<v1::SettleRequest>) -> Result<Response<v1::SettleReply>, Status> {
        self.authenticator.admin(request.metadata()).await?;
        let bound = match request.into_inner().timeout_ms {
            0 => SETTLE_DEFAULT,
            milliseconds => Duration::from_millis(milliseconds).min(SETTLE_MOST),
        };
        let deadline = Instant::now() + bound;
        // What the files say now is with the publisher before our question is.
        match timeout_at(deadline + ANSWER, self.rescan.now()).await {
            Ok(true) => {}
            Ok(false) => return Err(Status::unavailable("the source is not watched any more")),
            Err(_) => return Err(Status::deadline_exceeded("the source could not be read in time")),
        }
        let asked = |reply| Command::Settle(deadline, reply);
        self.ask(deadline + ANSWER, asked).await.map(Response::new)
    }

    async fn dump(&self, request: Request<v1::DumpRequest>) -> Result<Response<v1::DumpReply>, Status> {
        self.authenticator.admin(request.metadata()).await?;
        let node = Some(request.into_inner().node).filter(|node| !node.is_empty()).map(NodeName::new);
        let asked = |reply| Command::Dump(node.clone(), reply);
        match self.ask(Instant::now() + ANSWER, asked).await? {
            Some(dump) => Ok(Response::new(dump)),
            None => Err(unknown_node(node.as_ref())),
        }
    }

    async fn grant(&self, request: Request<v1::GrantRequest>) -> Result<Response<v1::GrantReply>, Status> {
        let asker = self.authenticator.admin(request.metadata()).await?;
        let node = NodeName::new(request.into_inner().node);
        let asked = |reply| Command::Locate(node.clone(), reply);
        let Some(located) = self.ask(Instant::now() + ANSWER, asked).await? else {
            return Err(Status::not_found(format!("node {node} is not connected")));
        };
        let token = self.granter.mint(&node, &asker, OffsetDateTime::now_utc()).map_err(|error| {
            tracing::error!(%error, "no grant");
            Status::internal("the grant could not be signed")
        })?;
        tracing::info!(%node, asker = &*asker, "granted inspection");
        let authority = self.signer.authority();
        Ok(Response::new(v1::GrantReply {
            token,
            inspect_address: located.inspect_address,
            node_identity: authority.spiffe_id(&Subject::NodeServer(node.to_string())),
            roots: vec![authority.root().to_vec().into()],
        }))
    }
}

fn unknown_node(node: Option<&NodeName>) -> Status {
    Status::not_found(match node {
        Some(node) => format!("there is no Node object {node}"),
        None => "nothing is compiled yet".to_owned(),
    })
}
