//! How the controller is reached: TLS that trusts the root file only, and the node's token on each call.
//!
//! Invariant: root file and token file are read again at each use, since both are rotated under a running agent; a new root file
//! makes a new connection. The token appears in no log.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use http::Uri;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::config::Limits;

/// The name in the controller's certificate, whatever its address.
const SERVER_NAME: &str = "mesh-controller";

/// The way to the controller. Cheap to clone; the connection is shared.
#[derive(Clone)]
pub struct Controller {
    shared: Arc<Shared>,
}

struct Shared {
    uri: Uri,
    root_cert: PathBuf,
    token_file: PathBuf,
    limits: Limits,
    current: Mutex<Option<Current>>,
}

struct Current {
    roots: Vec<u8>,
    channel: Channel,
}

/// Why the controller cannot even be called.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The root file.
    #[error("the root certificates {path}: {error}")]
    Roots {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// The token file.
    #[error("the node's token {path}: {error}")]
    Token {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// The address or the roots are not usable.
    #[error("TLS to the controller: {0}")]
    Tls(#[from] tonic::transport::Error),
}

/// Code, message and causes of a failed call. tonic keeps "connection refused" among the causes.
pub(crate) fn status_text(status: &tonic::Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

impl Controller {
    /// Nothing is read or connected yet.
    pub fn new(uri: Uri, root_cert: PathBuf, token_file: PathBuf, limits: Limits) -> Self {
        Self { shared: Arc::new(Shared { uri, root_cert, token_file, limits, current: Mutex::default() }) }
    }

    /// The connection; made at the first call on it, made again when it breaks.
    pub fn channel(&self) -> Result<Channel, ControllerError> {
        let shared = &self.shared;
        let roots = std::fs::read(&shared.root_cert)
            .map_err(|error| ControllerError::Roots { path: shared.root_cert.clone(), error })?;
        let mut current = shared.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = current.as_ref().filter(|current| current.roots == roots) {
            return Ok(current.channel.clone());
        }
        let channel = shared.endpoint(&roots)?.connect_lazy();
        *current = Some(Current { roots, channel: channel.clone() });
        Ok(channel)
    }

    /// The message with the node's token.
    pub fn authorized<T>(&self, message: T) -> Result<Request<T>, ControllerError> {
        let path = &self.shared.token_file;
        let fail = |error| ControllerError::Token { path: path.clone(), error };
        let token = std::fs::read_to_string(path).map_err(fail)?;
        let mut bearer: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| fail(io::Error::new(io::ErrorKind::InvalidData, "holds more than a token")))?;
        bearer.set_sensitive(true);
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", bearer);
        Ok(request)
    }
}

impl Shared {
    fn endpoint(&self, roots: &[u8]) -> Result<Endpoint, tonic::transport::Error> {
        let tls =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(roots)).domain_name(SERVER_NAME);
        let endpoint = Endpoint::from(self.uri.clone())
            .connect_timeout(self.limits.control_connect)
            .http2_keep_alive_interval(self.limits.control_ping_interval)
            .keep_alive_timeout(self.limits.control_ping_timeout)
            .keep_alive_while_idle(true)
            .tls_config(tls)?;
        Ok(endpoint)
    }
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Controller({})", self.shared.uri)
    }
}
