//! The API server as the judge: TokenReview says who holds a token, SubjectAccessReview whether a person may ask.
//!
//! Invariant: a node is who the API server says the token was given to, and must be a Node object that we know. Only positive answers
//! are kept, by the token's SHA-256, for a minute at most; how many are kept, and how many questions are open, is bounded.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use mesh_model::name::{Namespace, NodeName, WorkloadUid};
use sha2::{Digest, Sha256};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};

use super::Refused;
use crate::placement::Placement;

/// The audience that tokens for us carry.
pub const AUDIENCE: &str = "tulle";
/// The service account of the node agents, in our own namespace.
const NODE_ACCOUNT: &str = "mesh-node";
/// Claims of a projected token, as the API server tells them.
const NODE_CLAIM: &str = "authentication.kubernetes.io/node-name";
const POD_CLAIM: &str = "authentication.kubernetes.io/pod-uid";
/// How long a positive answer is believed.
const KEPT: Duration = Duration::from_secs(60);
/// Answers kept; a cluster has one token per node, and a few people.
const MAX_KEPT: usize = 8192;
/// Questions open at a time; the rest waits for them.
const MAX_OPEN: usize = 32;
/// For a question, with the wait for its turn.
const ANSWER: Duration = Duration::from_secs(5);
/// Tokens of the API server have about a kilobyte.
const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Who a token belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Caller {
    Node(NodeName),
    Admin(Arc<str>),
}

/// What is asked about a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Role {
    Node,
    Admin,
}

type Digested = [u8; 32];

/// Asks the API server.
pub struct Reviewer {
    client: Client,
    own_namespace: Namespace,
    nodes: watch::Receiver<Option<Arc<BTreeSet<NodeName>>>>,
    placement: watch::Receiver<Arc<Placement>>,
    kept: Mutex<Kept>,
    open: Semaphore,
}

impl Reviewer {
    /// For node agents and administrators of this namespace.
    pub fn new(
        client: Client,
        own_namespace: Namespace,
        nodes: watch::Receiver<Option<Arc<BTreeSet<NodeName>>>>,
        placement: watch::Receiver<Arc<Placement>>,
    ) -> Self {
        let kept = Mutex::new(Kept::default());
        Self { client, own_namespace, nodes, placement, kept, open: Semaphore::new(MAX_OPEN) }
    }

    /// The node whose agent holds the token.
    pub async fn node(&self, token: &str) -> Result<NodeName, Refused> {
        // Without these nobody can be told from a stranger: no need to ask.
        let nodes = self.nodes.borrow().clone().ok_or(Refused::NotLoaded)?;
        let node = match self.judge(token, Role::Node).await? {
            Caller::Node(node) => node,
            Caller::Admin(name) => return Err(Refused::Account(name.to_string())),
        };
        if nodes.contains(&node) { Ok(node) } else { Err(Refused::NodeGone(node)) }
    }

    /// The person who holds the token and may ask.
    pub async fn admin(&self, token: &str) -> Result<Arc<str>, Refused> {
        match self.judge(token, Role::Admin).await? {
            Caller::Admin(name) => Ok(name),
            Caller::Node(_) => Err(Refused::Unknown),
        }
    }

    async fn judge(&self, token: &str, role: Role) -> Result<Caller, Refused> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Refused::Unknown);
        }
        let key = (Sha256::digest(token.as_bytes()).into(), role);
        if let Some(caller) = self.kept().get(&key, Instant::now()) {
            return Ok(caller);
        }
        let asked = Instant::now();
        let caller = timeout(ANSWER, self.ask(token, role))
            .await
            .map_err(|_| Refused::Unavailable("the API server did not answer in 5 s"))??;
        self.kept().insert(key, caller.clone(), asked);
        Ok(caller)
    }

    async fn ask(&self, token: &str, role: Role) -> Result<Caller, Refused> {
        let _turn = self.open.acquire().await.map_err(|_| Refused::Unavailable("shutting down"))?;
        let user = user_of(self.review(token).await?)?;
        match role {
            Role::Node => self.node_of(&user).map(Caller::Node),
            Role::Admin => {
                self.check_access(&user).await?;
                Ok(Caller::Admin(user.username.unwrap_or_default().into()))
            }
        }
    }

    async fn review(&self, token: &str) -> Result<TokenReviewStatus, Refused> {
        let spec =
            TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: Some(token.to_owned()) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = Api::all(self.client.clone()).create(&PostParams::default(), &review).await;
        answer.map_err(unavailable)?.status.ok_or(Refused::Unknown)
    }

    fn node_of(&self, user: &UserInfo) -> Result<NodeName, Refused> {
        let name = user.username.as_deref().unwrap_or_default();
        if name != format!("system:serviceaccount:{}:{NODE_ACCOUNT}", self.own_namespace) {
            return Err(Refused::Account(name.to_owned()));
        }
        if let Some(node) = claim(user, NODE_CLAIM) {
            return Ok(NodeName::new(node));
        }
        // API servers before 1.30 name the pod only.
        let pod = claim(user, POD_CLAIM).map(WorkloadUid::new).ok_or(Refused::NoNode)?;
        self.placement.borrow().node_of(&pod).cloned().ok_or(Refused::NoNode)
    }

    async fn check_access(&self, user: &UserInfo) -> Result<(), Refused> {
        let review = access_review(user, &self.own_namespace);
        let answer = Api::all(self.client.clone()).create(&PostParams::default(), &review).await;
        match answer.map_err(unavailable)?.status {
            Some(status) if status.allowed && status.denied != Some(true) => Ok(()),
            _ => {
                let name = user.username.clone().unwrap_or_default();
                Err(Refused::Forbidden(name, self.own_namespace.to_string()))
            }
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Positive answers.
#[derive(Default)]
struct Kept {
    answers: HashMap<(Digested, Role), (Caller, Instant)>,
}

impl Kept {
    fn get(&self, key: &(Digested, Role), now: Instant) -> Option<Caller> {
        let (caller, asked) = self.answers.get(key)?;
        (now.duration_since(*asked) < KEPT).then(|| caller.clone())
    }

    fn insert(&mut self, key: (Digested, Role), caller: Caller, asked: Instant) {
        if self.answers.len() >= MAX_KEPT {
            self.answers.retain(|_, (_, earlier)| asked.duration_since(*earlier) < KEPT);
        }
        if self.answers.len() < MAX_KEPT {
            self.answers.insert(key, (caller, asked));
        }
    }
}

/// The holder of the token, if it is good and for us.
fn user_of(status: TokenReviewStatus) -> Result<UserInfo, Refused> {
    if status.authenticated != Some(true) {
        return Err(Refused::Unknown);
    }
    // An API server that does not know audiences answers without any.
    if !status.audiences.iter().flatten().any(|audience| audience == AUDIENCE) {
        return Err(Refused::Audience);
    }
    status.user.ok_or(Refused::Unknown)
}

fn claim<'a>(user: &'a UserInfo, name: &str) -> Option<&'a str> {
    let values = user.extra.as_ref()?.get(name)?;
    values.first().map(String::as_str).filter(|value| !value.is_empty() && values.len() == 1)
}

fn access_review(user: &UserInfo, namespace: &Namespace) -> SubjectAccessReview {
    let extra: BTreeMap<String, Vec<String>> = user.extra.clone().unwrap_or_default();
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: Some(extra),
            resource_attributes: Some(ResourceAttributes {
                group: Some("tulle.dev".to_owned()),
                resource: Some("meshes".to_owned()),
                verb: Some("get".to_owned()),
                namespace: Some(namespace.to_string()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

/// The error's text may hold anything; callers get a word, our log the rest.
fn unavailable(error: kube::Error) -> Refused {
    tracing::warn!(%error, "a token cannot be checked");
    Refused::Unavailable("the API server refused the question or is away")
}

#[cfg(test)]
mod tests;
