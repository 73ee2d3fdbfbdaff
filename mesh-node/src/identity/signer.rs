//! Who signs: the contract between the store and the controller's CA (or a CA in a test).

use std::{fmt, future::Future, pin::Pin};

use mesh_model::identity::Identity;
use rustls_pki_types::CertificateDer;

/// Whom a certificate is for.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Subject {
    /// A workload of this node.
    Workload(Identity),
    /// The inspection server of this node; the text is its SPIFFE id, `spiffe://<trust domain>/tulle/node/<node>`.
    NodeServer(String),
}

impl Subject {
    /// The one URI that the certificate must carry.
    pub fn uri(&self) -> String {
        match self {
            Self::Workload(identity) => identity.to_string(),
            Self::NodeServer(uri) => uri.clone(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri())
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Signed {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// What peers may chain to.
    pub roots: Vec<CertificateDer<'static>>,
}

/// Why nothing usable came back.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignError {
    /// The controller said no.
    #[error("the controller refuses to sign: {0}")]
    Refused(String),
    /// The controller was not reached.
    #[error("the controller was not reached: {0}")]
    Unreachable(String),
}

/// A signing under way.
pub type SignFuture = Pin<Box<dyn Future<Output = Result<Signed, SignError>> + Send>>;

/// Signs requests (PKCS#10, DER).
pub trait Signer: fmt::Debug + Send + Sync + 'static {
    /// Asks for a certificate of `subject` over the key of `csr`. The caller bounds the time.
    fn sign(&self, subject: Subject, csr: Vec<u8>) -> SignFuture;
}
