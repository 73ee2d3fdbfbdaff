//! Who calls: the bearer token of a request -> a node's name, or an administrator's.
//!
//! Two judges: files with tokens of our own (the directory source), and the API server (a cluster). Invariant: a handler gets its
//! caller's name only from here; what the message itself says is compared with it, never believed. A token is never logged.

use std::{collections::BTreeSet, sync::Arc};

use mesh_model::name::NodeName;
use tokio::sync::watch;
use tonic::{Status, metadata::MetadataMap};

use crate::{
    metrics::{Metrics, ReasonLabels},
    token::{TokenError, TokenFiles, Tokens},
};

mod review;

pub use review::Reviewer;

/// Why a caller is not served.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Nothing to check.
    #[error("there is no bearer token in the metadata `authorization`")]
    NoToken,
    /// Nobody's.
    #[error("the bearer token is not valid here")]
    Unknown,
    /// Somebody's, and not for us.
    #[error("the bearer token is not for the audience {audience}", audience = review::AUDIENCE)]
    Audience,
    /// Somebody else's than a node agent's.
    #[error("the bearer token is of {0}, which is not the account of the node agents")]
    Account(String),
    /// It does not say which node its holder runs on.
    #[error("the bearer token says neither node nor a pod that we know")]
    NoNode,
    /// It names a node that is not there.
    #[error("there is no Node object {0}")]
    NodeGone(NodeName),
    /// A known person who may not.
    #[error("{0} may not `get` `meshes` of `tulle.dev` in namespace {1}")]
    Forbidden(String, String),
    /// We do not know anything yet.
    #[error("the controller has not read its source yet")]
    NotLoaded,
    /// The judge is away.
    #[error("the token cannot be checked: {0}")]
    Unavailable(&'static str),
}

impl Refused {
    fn reason(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::Unknown => "unknown",
            Self::Audience => "audience",
            Self::Account(_) => "account",
            Self::NoNode => "no_node",
            Self::NodeGone(_) => "node_gone",
            Self::Forbidden(..) => "forbidden",
            Self::NotLoaded => "not_loaded",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let text = refused.to_string();
        match refused {
            Refused::NotLoaded | Refused::Unavailable(_) => Self::unavailable(text),
            Refused::Forbidden(..) => Self::permission_denied(text),
            _ => Self::unauthenticated(text),
        }
    }
}

/// Checks tokens.
#[derive(Clone)]
pub struct Authenticator {
    judge: Judge,
    metrics: Metrics,
}

#[derive(Clone)]
enum Judge {
    Files(watch::Receiver<Arc<Tokens>>),
    Reviews(Arc<Reviewer>),
}

impl Authenticator {
    /// With the tokens of the moment.
    pub fn with_files(tokens: watch::Receiver<Arc<Tokens>>, metrics: Metrics) -> Self {
        Self { judge: Judge::Files(tokens), metrics }
    }

    /// With the API server's word.
    pub fn with_reviews(reviewer: Reviewer, metrics: Metrics) -> Self {
        Self { judge: Judge::Reviews(Arc::new(reviewer)), metrics }
    }

    /// The node that calls.
    pub async fn node(&self, metadata: &MetadataMap) -> Result<NodeName, Status> {
        let judged = async {
            let token = bearer(metadata)?;
            match &self.judge {
                Judge::Files(tokens) => loaded(tokens)?.node(token).ok_or(Refused::Unknown),
                Judge::Reviews(reviewer) => reviewer.node(token).await,
            }
        };
        self.counted(judged.await)
    }

    /// The administrator who calls, by name.
    pub async fn admin(&self, metadata: &MetadataMap) -> Result<Arc<str>, Status> {
        let judged = async {
            let token = bearer(metadata)?;
            match &self.judge {
                Judge::Files(tokens) => match loaded(tokens)?.is_admin(token) {
                    true => Ok("admin".into()),
                    false => Err(Refused::Unknown),
                },
                Judge::Reviews(reviewer) => reviewer.admin(token).await,
            }
        };
        self.counted(judged.await)
    }

    fn counted<T>(&self, judged: Result<T, Refused>) -> Result<T, Status> {
        judged.map_err(|refused| {
            let reason = refused.reason();
            self.metrics.unauthenticated.get_or_create(&ReasonLabels { reason }).inc();
            tracing::debug!(reason, "caller refused");
            refused.into()
        })
    }
}

fn bearer(metadata: &MetadataMap) -> Result<&str, Refused> {
    let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| value.strip_prefix("Bearer ").or(value.strip_prefix("bearer ")));
    token.map(str::trim).filter(|token| !token.is_empty()).ok_or(Refused::NoToken)
}

fn loaded(tokens: &watch::Receiver<Arc<Tokens>>) -> Result<Arc<Tokens>, Refused> {
    let tokens = tokens.borrow().clone();
    if tokens.is_loaded() { Ok(tokens) } else { Err(Refused::NotLoaded) }
}

/// Who learns which nodes there are: the publisher's end of [`Authenticator`].
#[derive(Debug)]
pub enum Roster {
    /// Each node gets a token in a file.
    Files {
        /// The files.
        files: TokenFiles,
        /// What is in them.
        tokens: watch::Sender<Arc<Tokens>>,
    },
    /// The names are enough: somebody else makes tokens.
    Names(watch::Sender<Option<Arc<BTreeSet<NodeName>>>>),
}

impl Roster {
    /// These are the nodes from now on. A node that cannot have a token is logged and has none.
    pub fn set(&self, nodes: &BTreeSet<NodeName>) -> Result<(), TokenError> {
        match self {
            Self::Files { files, tokens } => {
                let (known, refused) = files.load(nodes)?;
                for error in refused {
                    tracing::error!(%error, "a node has no token");
                }
                tokens.send_replace(Arc::new(known));
            }
            Self::Names(names) => drop(names.send_replace(Some(Arc::new(nodes.clone())))),
        }
        Ok(())
    }
}
