//! Reaches the controller and the nodes: through the cluster's API server, or by address where there is no cluster. TLS against the
//! mesh's root, a bearer token, time-outs on both.

use std::{path::PathBuf, time::Duration};

use mesh_proto::v1::{GrantRequest, inspect_client::InspectClient, node_inspect_client::NodeInspectClient};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::{
    cli::Globals,
    cluster::{Cluster, forward},
    exit::{Failure, deepest},
};

/// The name in the controller's certificate: it is dialled by address.
const CONTROLLER_NAME: &str = "mesh-controller";
/// Where a controller without a cluster is, if nobody says.
const DEFAULT_CONTROLLER: &str = "https://127.0.0.1:15012";
/// A dump of a large mesh.
const MAX_MESSAGE_BYTES: usize = 256 << 20;
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// Adds `authorization: Bearer …`. No Debug: it holds a secret.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// The controller's inspection service.
pub type Controller = InspectClient<InterceptedService<Channel, Bearer>>;
/// A node's inspection service.
pub type Node = NodeInspectClient<InterceptedService<Channel, Bearer>>;

/// Connects to the controller: the one that the flags name, else the cluster's.
pub async fn controller(globals: &Globals) -> Result<Controller, Failure> {
    match cluster(globals).await? {
        Some(cluster) => controller_of(&cluster).await,
        None => {
            let address = globals.controller.as_deref().unwrap_or(DEFAULT_CONTROLLER);
            let root = read(globals.root_cert.clone(), globals, "root.crt", "--root-cert")?;
            let token = read(globals.token_file.clone(), globals, "admin.token", "--token-file")?;
            let endpoint = endpoint(address, CONTROLLER_NAME, vec![Certificate::from_pem(root)])?;
            let channel = endpoint.connect().await.map_err(|error| unreachable(address, &error))?;
            inspect(channel, &token)
        }
    }
}

/// Connects to the controller of this cluster.
pub async fn controller_of(cluster: &Cluster) -> Result<Controller, Failure> {
    let root = vec![Certificate::from_pem(cluster.root_certificate().await?)];
    let token = cluster.token().await?;
    let name = format!("mesh-controller in namespace {}", cluster.mesh_namespace);
    let endpoint = endpoint("https://mesh-controller", CONTROLLER_NAME, root)?;
    let forward = forward::to_controller(cluster).await?;
    let channel = forward.connect(endpoint).await.map_err(|error| unreachable(&name, &error))?;
    inspect(channel, &token)
}

/// Asks the controller for a grant and connects to the node with it.
pub async fn node(globals: &Globals, name: &str) -> Result<Node, Failure> {
    let cluster = cluster(globals).await?;
    let mut controller = match &cluster {
        Some(cluster) => controller_of(cluster).await?,
        None => controller(globals).await?,
    };
    let grant = controller
        .grant(GrantRequest { node: name.to_owned() })
        .await
        .map_err(|status| Failure::from_status(&format!("no grant for node {name}"), &status))?
        .into_inner();
    if grant.inspect_address.is_empty() {
        return Err(Failure::unreachable(format!("node {name} serves no inspection API"))
            .hint("start mesh-node with --inspect-addr, or see `meshctl status` whether it is connected"));
    }
    let roots: Vec<Certificate> = grant.roots.iter().map(|der| root_certificate(der)).collect();
    let address = format!("https://{}", grant.inspect_address);
    let endpoint = endpoint(&address, &node_server_name(name), roots)?;
    let channel = match &cluster {
        Some(cluster) => {
            forward::to_node(cluster, name, &grant.inspect_address).await?.connect(endpoint).await
        }
        None => endpoint.connect().await,
    };
    let channel = channel.map_err(|error| unreachable(&format!("node {name}"), &error))?;
    Ok(NodeInspectClient::with_interceptor(channel, bearer(&grant.token)?)
        .max_decoding_message_size(MAX_MESSAGE_BYTES))
}

/// The cluster to go through; None where the flags name a controller without one.
async fn cluster(globals: &Globals) -> Result<Option<Cluster>, Failure> {
    let direct = globals.controller.is_some()
        || globals.state.is_some()
        || globals.root_cert.is_some()
        || globals.token_file.is_some();
    if direct { Ok(None) } else { Cluster::connect(globals).await.map(Some) }
}

fn inspect(channel: Channel, token: &str) -> Result<Controller, Failure> {
    Ok(InspectClient::with_interceptor(channel, bearer(token.trim())?)
        .max_decoding_message_size(MAX_MESSAGE_BYTES))
}

/// The DNS name in a node's inspection certificate.
fn node_server_name(node: &str) -> String {
    format!("{node}.mesh-node")
}

fn endpoint(address: &str, name: &str, roots: Vec<Certificate>) -> Result<Endpoint, Failure> {
    let tls = ClientTlsConfig::new().ca_certificates(roots).domain_name(name);
    Endpoint::from_shared(address.to_owned())
        .and_then(|endpoint| endpoint.connect_timeout(CONNECT).tls_config(tls))
        .map_err(|error| Failure::bad_input(format!("{address}: {error}")))
}

fn unreachable(what: &str, error: &tonic::transport::Error) -> Failure {
    Failure::unreachable(format!("{what}: {}", deepest(error)))
        .hint("is it running, is this its address, and is the root certificate the mesh's?")
}

/// DER as PEM, which is all that tonic's TLS configuration takes.
fn root_certificate(der: &[u8]) -> Certificate {
    Certificate::from_pem(pem::encode(&pem::Pem::new("CERTIFICATE", der)))
}

fn bearer(token: &str) -> Result<Bearer, Failure> {
    format!("Bearer {token}")
        .parse()
        .map(Bearer)
        .map_err(|_| Failure::bad_input("the token has characters that no token has"))
}

fn read(given: Option<PathBuf>, globals: &Globals, name: &str, flag: &str) -> Result<String, Failure> {
    let path = given.or_else(|| globals.state.as_ref().map(|state| state.join(name))).ok_or_else(|| {
        Failure::bad_input(format!("{flag} is not given"))
            .hint(format!("give {flag} FILE, or --state DIR (the controller's state directory)"))
    })?;
    std::fs::read_to_string(&path).map_err(|error| Failure::bad_input(format!("{}: {error}", path.display())))
}
