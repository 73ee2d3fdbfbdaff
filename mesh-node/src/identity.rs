//! Who we are and who they are: certificates of local workloads, and the TLS of the mesh.
//!
//! Invariants: private keys exist in memory only and are never printed; a [`VerifiedPeer`] is made by [`verify_peer`] alone; a
//! certificate is used only after the chain, the name and the key were found to be what was asked for.

mod csr;
mod failure;
mod issued;
mod peer;
mod refresh;
mod remote;
mod signer;
mod store;
mod trust;

pub use failure::HandshakeError;
pub use issued::BadCertificate;
pub use peer::{PeerError, VerifiedPeer, verify_peer};
pub use remote::RemoteSigner;
pub use signer::{SignError, SignFuture, Signed, Signer, Subject};
pub use store::{Certificates, NoCertificate, Settings, Status};
pub use trust::Roots;

pub(crate) use peer::uri_names;

/// The only cryptography of the mesh: aws-lc-rs, TLS 1.3, X25519MLKEM768 preferred (the provider's own order of key exchanges).
pub(crate) fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    static PROVIDER: std::sync::LazyLock<std::sync::Arc<rustls::crypto::CryptoProvider>> =
        std::sync::LazyLock::new(|| std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
