//! Connections to the mesh's pods through the API server's port-forward: no port of the mesh needs to be reachable from here.

use std::io;

use http::Uri;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::io::DuplexStream;
use tonic::transport::{Channel, Endpoint, Error};

use super::{Cluster, pods};
use crate::exit::{Failure, deepest};

/// Where the controller serves meshctl.
const CONTROLLER_PORT: u16 = 15012;

/// Dials one port of one pod, for tonic.
#[derive(Clone)]
pub struct Forward {
    pods: Api<Pod>,
    pod: String,
    port: u16,
}

/// Towards a ready controller.
pub async fn to_controller(cluster: &Cluster) -> Result<Forward, Failure> {
    let found = pods::of(cluster, "mesh-controller").await?;
    let ready = found.iter().find(|pod| pods::is_ready(pod)).ok_or_else(|| {
        let trouble: Vec<String> = found
            .iter()
            .filter_map(|pod| pods::trouble(pod).map(|why| format!("{}: {why}", pods::name(pod))))
            .collect();
        let why = if trouble.is_empty() { "there is no pod".to_owned() } else { trouble.join("; ") };
        Failure::unreachable(format!(
            "no mesh-controller in namespace {} is ready: {why}",
            cluster.mesh_namespace
        ))
        .hint("see `meshctl check`; is the mesh installed in this namespace (--mesh-namespace)?")
    })?;
    Ok(Forward::new(cluster, pods::name(ready), CONTROLLER_PORT))
}

/// Towards the inspection API of a node, which listens on the node's loopback at the port of `address`.
pub async fn to_node(cluster: &Cluster, node: &str, address: &str) -> Result<Forward, Failure> {
    let port = address
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok())
        .ok_or_else(|| Failure::runtime(format!("node {node} says its inspection API is at {address:?}")))?;
    let found = pods::of(cluster, "mesh-node").await?;
    let pod = found.iter().find(|pod| pods::node(pod) == node).ok_or_else(|| {
        Failure::unreachable(format!("node {node} has no mesh-node pod")).hint("see `meshctl check`")
    })?;
    Ok(Forward::new(cluster, pods::name(pod), port))
}

impl Forward {
    fn new(cluster: &Cluster, pod: &str, port: u16) -> Self {
        let pods = Api::namespaced(cluster.client.clone(), &cluster.mesh_namespace);
        Self { pods, pod: pod.to_owned(), port }
    }

    /// Connects `endpoint` through this forward.
    pub async fn connect(self, endpoint: Endpoint) -> Result<Channel, Error> {
        endpoint.connect_with_connector(tower::service_fn(move |_: Uri| self.clone().dial())).await
    }

    async fn dial(self) -> io::Result<TokioIo<DuplexStream>> {
        let refused = |error: String| io::Error::new(io::ErrorKind::ConnectionRefused, error);
        let mut forwarder = self
            .pods
            .portforward(&self.pod, &[self.port])
            .await
            .map_err(|error| refused(format!("port-forward to {}: {}", self.pod, deepest(&error))))?;
        let stream = forwarder
            .take_stream(self.port)
            .ok_or_else(|| refused(format!("port-forward to {} gave no stream", self.pod)))?;
        Ok(TokioIo::new(stream))
    }
}
