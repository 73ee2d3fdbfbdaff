//! CSR -> certificate, only for what the controller's own data places on the asking node.
//!
//! Invariant: of the CSR only the public key is used, after its signature proved that the asker holds the private one. Names,
//! usages and life time come from us, whatever the CSR asks for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mesh_model::{
    identity::{Identity, NotAnIdentity},
    name::NodeName,
};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SubjectPublicKeyInfo};
use time::OffsetDateTime;
use tokio::sync::watch;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use crate::{
    ca::{Authority, CaError, Issued, Subject},
    placement::{NotPlaced, Placement},
};

/// A CSR with a P-256 key is about 300 bytes; nothing that is asked of us needs more.
const MAX_CSR_BYTES: usize = 4096;
/// Requests of one node that may be in work at once. A node needs one per identity, at start and at half-life.
const CONCURRENT_PER_NODE: usize = 8;

/// What a node asks to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// A workload's SPIFFE id, as it came.
    Workload(String),
    /// The server of its own inspection API.
    NodeServer,
}

/// Why there is no certificate; each names the check that failed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Not a PKCS#10 request.
    #[error("the CSR cannot be read: {0}")]
    MalformedCsr(&'static str),
    /// The asker does not hold the private key.
    #[error("the CSR's signature does not verify")]
    CsrSignature,
    /// Another kind of key.
    #[error("the CSR's key is not EC P-256")]
    KeyType,
    /// Not an identity.
    #[error("the requested identity is wrong: {0}")]
    Identity(#[from] NotAnIdentity),
    /// Another trust domain than ours.
    #[error("identity {identity} is not of trust domain {ours}")]
    TrustDomain {
        /// What was asked for.
        identity: Identity,
        /// What we sign for.
        ours: String,
    },
    /// The controller's data does not place it on this node.
    #[error(transparent)]
    NotPlaced(#[from] NotPlaced),
    /// Too many at once.
    #[error("node {0} has {CONCURRENT_PER_NODE} signing requests in work; ask again later")]
    Busy(NodeName),
    /// Our fault.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// The process is ending.
    #[error("interrupted")]
    Interrupted,
}

impl Refused {
    /// A word for the metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::MalformedCsr(_) => "malformed_csr",
            Self::CsrSignature => "csr_signature",
            Self::KeyType => "key_type",
            Self::Identity(_) => "identity",
            Self::TrustDomain { .. } => "trust_domain",
            Self::NotPlaced(NotPlaced::Elsewhere { .. }) => "not_placed",
            Self::NotPlaced(NotPlaced::NotEnrolled { .. }) => "not_enrolled",
            Self::Busy(_) => "busy",
            Self::Authority(_) | Self::Interrupted => "internal",
        }
    }
}

/// Signs for nodes.
pub struct Signer {
    authority: Arc<Authority>,
    placement: watch::Receiver<Arc<Placement>>,
    svid_ttl: Duration,
    in_work: Arc<Mutex<HashMap<NodeName, usize>>>,
}

impl Signer {
    /// A signer that consults the latest placement at each request.
    pub fn new(
        authority: Arc<Authority>,
        placement: watch::Receiver<Arc<Placement>>,
        svid_ttl: Duration,
    ) -> Self {
        Self { authority, placement, svid_ttl, in_work: Arc::default() }
    }

    /// The authority behind it.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Takes one of the node's places; it is given back when dropped.
    pub fn admit(&self, node: &NodeName) -> Result<InWork, Refused> {
        let mut in_work = self.in_work.lock().unwrap_or_else(PoisonError::into_inner);
        let count = in_work.entry(node.clone()).or_default();
        if *count >= CONCURRENT_PER_NODE {
            return Err(Refused::Busy(node.clone()));
        }
        *count += 1;
        Ok(InWork { node: node.clone(), in_work: self.in_work.clone() })
    }

    /// Decides and signs. Takes a tenth of a millisecond of CPU.
    pub fn sign(
        &self,
        node: &NodeName,
        csr: &[u8],
        wanted: &Wanted,
        now: OffsetDateTime,
    ) -> Result<Issued, Refused> {
        let key = verified_key(csr)?;
        let subject = match wanted {
            Wanted::Workload(uri) => Subject::Workload(self.placed(node, uri)?),
            Wanted::NodeServer => Subject::NodeServer(node.to_string()),
        };
        Ok(self.authority.issue(&subject, &key, self.svid_ttl, now)?)
    }

    fn placed(&self, node: &NodeName, uri: &str) -> Result<Identity, Refused> {
        let identity = Identity::parse(uri)?;
        let ours = self.authority.trust_domain();
        if identity.trust_domain != *ours {
            return Err(Refused::TrustDomain { identity, ours: ours.to_string() });
        }
        self.placement.borrow().check(node, &identity)?;
        Ok(identity)
    }
}

/// One signing request of a node, being worked on.
pub struct InWork {
    node: NodeName,
    in_work: Arc<Mutex<HashMap<NodeName, usize>>>,
}

impl Drop for InWork {
    fn drop(&mut self) {
        let mut in_work = self.in_work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = in_work.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                in_work.remove(&self.node);
            }
        }
    }
}

/// The key of a CSR whose holder proved to have the private half.
fn verified_key(csr: &[u8]) -> Result<SubjectPublicKeyInfo, Refused> {
    if csr.len() > MAX_CSR_BYTES {
        return Err(Refused::MalformedCsr("it is larger than 4 KiB"));
    }
    let (rest, request) = X509CertificationRequest::from_der(csr)
        .map_err(|_| Refused::MalformedCsr("it is not a PKCS#10 request in DER"))?;
    if !rest.is_empty() {
        return Err(Refused::MalformedCsr("there are bytes after its end"));
    }
    let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
        .map_err(|_| Refused::KeyType)?;
    if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(Refused::KeyType);
    }
    request.verify_signature().map_err(|_| Refused::CsrSignature)?;
    Ok(key)
}

#[cfg(test)]
mod tests;
