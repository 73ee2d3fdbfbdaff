//! Reads who a peer is, after the handshake proved that its chain is good.
//!
//! Source: SPIFFE X.509-SVID §4 (exactly one URI name).

use mesh_model::identity::{Identity, TrustDomain};
use rustls_pki_types::CertificateDer;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

/// A peer whose certificate chain was verified in the handshake and whose SPIFFE id was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifiedPeer {
    identity: Identity,
}

impl VerifiedPeer {
    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

/// Why a peer's certificate does not say who it is.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PeerError {
    /// It showed none.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// Not an X.509 certificate.
    #[error("the peer's certificate cannot be read: {0}")]
    Unreadable(String),
    /// There must be exactly one URI among the subject's alternative names.
    #[error("the peer's certificate has {0} URI names; a SPIFFE certificate has exactly one")]
    UriNames(usize),
    /// The URI is not a workload's.
    #[error("the peer's name {0:?} is not spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    NotAWorkload(String),
    /// Another trust domain.
    #[error("the peer {identity} is not of our trust domain {ours}")]
    ForeignTrustDomain {
        /// Who it is.
        identity: Identity,
        /// Ours.
        ours: TrustDomain,
    },
}

/// Reads who the peer of a finished handshake is, from the certificates it showed, leaf first.
///
/// The chain was verified by the handshake (no TLS configuration of this crate leaves that out); this reads the name.
pub fn verify_peer(certs: &[CertificateDer<'_>], ours: &TrustDomain) -> Result<VerifiedPeer, PeerError> {
    let leaf = certs.first().ok_or(PeerError::NoCertificate)?;
    let names = uri_names(leaf).map_err(PeerError::Unreadable)?;
    let [name] = names.as_slice() else {
        return Err(PeerError::UriNames(names.len()));
    };
    let identity = Identity::parse(name).map_err(|_| PeerError::NotAWorkload(name.clone()))?;
    if identity.trust_domain != *ours {
        return Err(PeerError::ForeignTrustDomain { identity, ours: ours.clone() });
    }
    Ok(VerifiedPeer { identity })
}

/// The URIs among the subject's alternative names.
pub(crate) fn uri_names(certificate: &[u8]) -> Result<Vec<String>, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let names = parsed.subject_alternative_name().map_err(|error| error.to_string())?;
    let uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    Ok(uris.collect())
}
