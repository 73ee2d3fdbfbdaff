//! A fresh key and the request for its certificate.
//!
//! Invariant: the key leaves this process in no form; only its signature and public half do.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::signer::Subject;

/// A key that waits for its certificate.
pub(super) struct Pending {
    /// PKCS#10, DER.
    pub(super) csr: Vec<u8>,
    key: KeyPair,
}

impl Pending {
    /// A new ECDSA P-256 key, and a request with the subject's URI as its only name.
    pub(super) fn new(subject: &Subject) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(subject.uri().as_str().try_into()?)];
        let csr = params.serialize_request(&key)?.der().to_vec();
        Ok(Self { csr, key })
    }

    /// SubjectPublicKeyInfo, DER.
    pub(super) fn public_key(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }

    /// The key, for rustls.
    pub(super) fn into_private_key(self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }
}
