//! Reaches the controller and the nodes: TLS against the mesh's root, a bearer token, time-outs on both.

use std::{path::PathBuf, time::Duration};

use mesh_proto::v1::{GrantRequest, inspect_client::InspectClient, node_inspect_client::NodeInspectClient};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::{cli::Globals, exit::Failure};

/// The name in the controller's certificate: it is dialled by address.
const CONTROLLER_NAME: &str = "mesh-controller";
/// A dump of a large mesh.
const MAX_MESSAGE_BYTES: usize = 256 << 20;

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

/// Connects to the controller named by the global flags.
pub async fn controller(globals: &Globals) -> Result<Controller, Failure> {
    let root = read(globals.root_cert.clone(), globals, "root.crt", "--root-cert")?;
    let token = read(globals.token_file.clone(), globals, "admin.token", "--token-file")?;
    let bearer = bearer(token.trim())?;
    let channel = dial(&globals.controller, CONTROLLER_NAME, vec![Certificate::from_pem(root)]).await?;
    Ok(InspectClient::with_interceptor(channel, bearer).max_decoding_message_size(MAX_MESSAGE_BYTES))
}

/// Asks the controller for a grant and connects to the node with it.
pub async fn node(globals: &Globals, name: &str) -> Result<Node, Failure> {
    let mut controller = controller(globals).await?;
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
    let channel = dial(&address, &node_server_name(name), roots).await?;
    Ok(NodeInspectClient::with_interceptor(channel, bearer(&grant.token)?)
        .max_decoding_message_size(MAX_MESSAGE_BYTES))
}

/// The DNS name in a node's inspection certificate.
fn node_server_name(node: &str) -> String {
    format!("{node}.mesh-node")
}

async fn dial(address: &str, name: &str, roots: Vec<Certificate>) -> Result<Channel, Failure> {
    let tls = ClientTlsConfig::new().ca_certificates(roots).domain_name(name);
    Endpoint::from_shared(address.to_owned())
        .and_then(|endpoint| endpoint.connect_timeout(Duration::from_secs(10)).tls_config(tls))
        .map_err(|error| Failure::bad_input(format!("{address}: {error}")))?
        .connect()
        .await
        .map_err(|error| {
            Failure::unreachable(format!("{address}: {}", deepest(&error)))
                .hint("is it running, is this its address, and is the root certificate the mesh's?")
        })
}

/// DER as PEM, which is all that tonic's TLS configuration takes.
fn root_certificate(der: &[u8]) -> Certificate {
    Certificate::from_pem(pem::encode(&pem::Pem::new("CERTIFICATE", der)))
}

/// tonic says "transport error"; the reason is at the bottom of the chain.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
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
