//! Who we are and who they are: certificates of local workloads, and the TLS of the mesh.
//!
//! Invariants: private keys exist in memory only; a [`VerifiedPeer`] is made by [`verify_peer`] alone.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use mesh_model::identity::{Identity, TrustDomain};
use rustls_pki_types::CertificateDer;

/// Certificates of the local workloads, kept fresh. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Certificates {}

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

/// Why there is no certificate to be had now.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoCertificate {
    /// Nobody asked for it: the workload is not (or no longer) one of ours.
    #[error("{0} is not an identity of a workload of this node")]
    NotOurs(Identity),
    /// It did not come in time.
    #[error("no certificate for {identity} within {waited:?}: {last_error}")]
    Waited {
        /// Whose.
        identity: Identity,
        /// How long.
        waited: Duration,
        /// What the last attempt said.
        last_error: String,
    },
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
    #[error("the peer's certificate has {0} URI names, a SPIFFE certificate has exactly one")]
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

/// Reads who the peer of a finished handshake is. The chain was verified by the handshake; this reads its name.
pub fn verify_peer(certs: &[CertificateDer<'_>], ours: &TrustDomain) -> Result<VerifiedPeer, PeerError> {
    let _ = (certs, ours);
    unimplemented!("skeleton")
}

impl Certificates {
    /// Says which identities the local captured workloads have: those are fetched ahead, all others are forgotten.
    pub fn want(&self, identities: BTreeSet<Identity>) {
        let _ = identities;
    }

    /// TLS settings for dialling as `identity`. At once when the certificate is there, else after at most `wait`.
    pub async fn client(
        &self,
        identity: &Identity,
        wait: Duration,
    ) -> Result<Arc<rustls::ClientConfig>, NoCertificate> {
        let _ = (identity, wait);
        unimplemented!("skeleton")
    }

    /// TLS settings for accepting as `identity`; the peer must show a certificate.
    pub async fn server(
        &self,
        identity: &Identity,
        wait: Duration,
    ) -> Result<Arc<rustls::ServerConfig>, NoCertificate> {
        let _ = (identity, wait);
        unimplemented!("skeleton")
    }
}
