//! Who calls: the bearer token of a request -> a node's name, or the administrator.
//!
//! Invariant: a handler gets its caller's name only from here; what the message itself says is compared with it, never believed.

use std::sync::Arc;

use mesh_model::name::NodeName;
use tokio::sync::watch;
use tonic::{Status, metadata::MetadataMap};

use crate::{metrics::Metrics, token::Tokens};

/// Checks tokens.
#[derive(Clone)]
pub struct Authenticator {
    tokens: watch::Receiver<Arc<Tokens>>,
    metrics: Metrics,
}

impl Authenticator {
    /// With the tokens of the moment.
    pub fn new(tokens: watch::Receiver<Arc<Tokens>>, metrics: Metrics) -> Self {
        Self { tokens, metrics }
    }

    /// The node that calls.
    pub fn node(&self, metadata: &MetadataMap) -> Result<NodeName, Status> {
        self.check(metadata, |tokens, token| tokens.node(token))
    }

    /// Succeeds for the administrator.
    pub fn admin(&self, metadata: &MetadataMap) -> Result<(), Status> {
        self.check(metadata, |tokens, token| tokens.is_admin(token).then_some(()))
    }

    fn check<T>(
        &self,
        metadata: &MetadataMap,
        known: impl FnOnce(&Tokens, &str) -> Option<T>,
    ) -> Result<T, Status> {
        let tokens = self.tokens.borrow().clone();
        if !tokens.is_loaded() {
            return Err(Status::unavailable("the controller has not read its source yet"));
        }
        let header = metadata.get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer ").or(value.strip_prefix("bearer ")));
        let refused = match token {
            None => "there is no bearer token in the metadata `authorization`",
            Some(token) => match known(&tokens, token.trim()) {
                Some(caller) => return Ok(caller),
                None => "the bearer token is not valid here",
            },
        };
        self.metrics.unauthenticated.inc();
        Err(Status::unauthenticated(refused))
    }
}
