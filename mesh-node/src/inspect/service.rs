//! The three calls.

use std::time::{SystemTime, UNIX_EPOCH};

use mesh_model::{identity::TrustDomain, resource::Resource, snapshot::Snapshot};
use mesh_proto::{
    encode,
    v1::{
        self, Certificate, CertificatesReply, CertificatesRequest, ConnectionsReply, ConnectionsRequest,
        NodeDumpReply, NodeDumpRequest, node_inspect_server::NodeInspect,
    },
};
use tonic::{Request, Response, Status};

use super::{
    Inspected,
    grant::{GrantError, Judge},
};
use crate::identity;

pub(super) struct Service {
    inspected: Inspected,
    judge: Judge,
}

impl Service {
    pub(super) fn new(inspected: Inspected, trust_domain: TrustDomain) -> Self {
        let judge = Judge {
            node: inspected.node.clone(),
            trust_domain,
            roots: inspected.certificates.roots().clone(),
            clock: inspected.clock.clone(),
        };
        Self { inspected, judge }
    }

    /// Every call begins with this.
    fn admit<T>(&self, request: &Request<T>) -> Result<(), Box<Status>> {
        let refuse = |error: GrantError| {
            tracing::info!(%error, "an inspection call is refused");
            Box::new(Status::unauthenticated(error.to_string()))
        };
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = header
            .and_then(|text| text.strip_prefix("Bearer "))
            .ok_or_else(|| refuse(GrantError::Missing))?;
        let claims = self.judge.check(token.trim()).map_err(refuse)?;
        tracing::debug!(caller = claims.sub, "an inspection call");
        Ok(())
    }
}

#[tonic::async_trait]
impl NodeInspect for Service {
    async fn node_dump(&self, request: Request<NodeDumpRequest>) -> Result<Response<NodeDumpReply>, Status> {
        self.admit(&request).map_err(|status| *status)?;
        let snapshot = self.inspected.state.snapshot();
        Ok(Response::new(NodeDumpReply {
            resources: resources(&snapshot),
            generation: snapshot.generation(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            local: self.inspected.reporter.latest(),
        }))
    }

    async fn certificates(
        &self,
        request: Request<CertificatesRequest>,
    ) -> Result<Response<CertificatesReply>, Status> {
        self.admit(&request).map_err(|status| *status)?;
        let certificates = self.inspected.certificates.statuses().into_iter().map(certificate).collect();
        Ok(Response::new(CertificatesReply { certificates }))
    }

    async fn connections(
        &self,
        request: Request<ConnectionsRequest>,
    ) -> Result<Response<ConnectionsReply>, Status> {
        self.admit(&request).map_err(|status| *status)?;
        let connections = (self.inspected.connections)().await;
        Ok(Response::new(ConnectionsReply { connections }))
    }
}

/// Everything the snapshot has, by key.
fn resources(snapshot: &Snapshot) -> Vec<v1::Resource> {
    let mut all = vec![Resource::Mesh(snapshot.mesh().clone())];
    all.extend(snapshot.workloads().map(|workload| Resource::Workload((**workload).clone())));
    all.extend(snapshot.services().map(|service| Resource::Service((**service).clone())));
    all.extend(snapshot.policies().map(|policy| Resource::Policy((**policy).clone())));
    all.extend(snapshot.routes().map(|routes| Resource::Routes((**routes).clone())));
    all.extend(snapshot.destinations().map(|rule| Resource::Destination((**rule).clone())));
    all.sort_by_key(Resource::key);
    all.iter().map(encode::resource).collect()
}

fn certificate(status: identity::Status) -> Certificate {
    let seconds = |time: Option<SystemTime>| {
        let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    };
    let state = match (status.is_usable, status.last_error) {
        (true, None) => "ready".to_owned(),
        (true, Some(error)) => format!("ready; the refresh fails: {error}"),
        (false, Some(error)) => format!("failed: {error}"),
        (false, None) => "pending".to_owned(),
    };
    Certificate {
        identity: status.uri,
        serial: status.serial,
        not_before: seconds(status.not_before),
        not_after: seconds(status.not_after),
        state,
        chain_subjects: status.chain_subjects,
    }
}
