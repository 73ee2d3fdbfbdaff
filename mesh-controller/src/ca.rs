//! The certificate authority: one EC P-256 root, generated once, kept in the state directory or in a Secret (see [`crate::state`]).
//!
//! Invariant: the root key is in this file's [`Authority`], in [`RootPem`] on its way from and to the place where it is kept (`ca.key`,
//! 0600, or the Secret), and nowhere else; neither has a `Debug` or shows the key.
//! A damaged, exposed or missing key beside an existing root is an error that stops the process: a silently new root would cut
//! every node off.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use mesh_model::identity::{Identity, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;

use crate::files::{self, FileError, Readers};

/// Ten years: a root is replaced by rotation with overlap, never by expiry.
const ROOT_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Nodes' clocks may be this much behind ours.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Why there is no authority, or no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The state directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key can be read by others; whoever read it can be any workload.
    #[error("{0}: the CA key is readable by others than its owner; if nobody read it, chmod 600 it")]
    Exposed(PathBuf),
    /// There is a root and no key for it.
    #[error(
        "{0}: the CA key is missing while ca.crt exists; restore it, or remove ca.crt to start with a new root"
    )]
    KeyMissing(PathBuf),
    /// The file is not what it should be.
    #[error("{path}: {reason}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong; never the content.
        reason: String,
    },
    /// The library refused to build a certificate.
    #[error("building a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// What a certificate says of its holder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// `spiffe://td/ns/N/sa/S`.
    Workload(Identity),
    /// `spiffe://td/tulle/node/<node>`: the server of a node's inspection API.
    NodeServer(String),
    /// `spiffe://td/tulle/controller` and the DNS name `mesh-controller`.
    Controller,
    /// `spiffe://td/tulle/grant`: signs grants, never used in TLS.
    Grant,
}

/// A certificate fresh from the authority.
#[derive(Clone, Debug)]
pub struct Issued {
    /// DER.
    pub certificate: CertificateDer<'static>,
    /// The certificate as PEM.
    pub pem: String,
    /// From when it is valid.
    pub not_before: OffsetDateTime,
    /// Until when.
    pub not_after: OffsetDateTime,
}

/// A node's inspection server is `<node>.mesh-node` to clients that dial its IP address.
pub const NODE_DNS: &str = "mesh-node";
/// The DNS name in the controller's certificate, which clients that dial an IP address verify.
pub const CONTROLLER_DNS: &str = "mesh-controller";

/// The root and its key as PEM: what is kept.
pub struct RootPem {
    /// PKCS#8.
    pub(crate) key: String,
    /// The root.
    pub(crate) certificate: String,
}

impl RootPem {
    /// A new root with a new key.
    pub fn generate(trust_domain: &TrustDomain, now: OffsetDateTime) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = root_params(trust_domain, now).self_signed(&key)?.pem();
        Ok(Self { key: key.serialize_pem(), certificate })
    }
}

/// The root and its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    root_pem: String,
    root_not_after: OffsetDateTime,
    trust_domain: TrustDomain,
}

impl Authority {
    /// Loads the root from the directory, or generates it if there is none yet.
    ///
    /// Files: `ca.key` (PKCS#8 PEM), `ca.crt`, and `root.crt`, the bundle for nodes and meshctl.
    pub fn open(directory: &Path, trust_domain: TrustDomain, now: OffsetDateTime) -> Result<Self, CaError> {
        let key_path = directory.join("ca.key");
        let root_path = directory.join("ca.crt");
        let key = match (files::read(&key_path)?, root_path.exists()) {
            (Some(text), _) => load_key(&key_path, &text)?,
            (None, true) => return Err(CaError::KeyMissing(key_path)),
            (None, false) => generate_key(&key_path)?,
        };
        // A key without its root is what a crash at the very first start leaves. The same key and name give a root
        // under which everything signed before still verifies.
        let pem = match files::read(&root_path)? {
            Some(text) => text,
            None => {
                let pem = root_params(&trust_domain, now).self_signed(&key)?.pem();
                files::write(&root_path, pem.as_bytes(), Readers::All)?;
                pem
            }
        };
        let authority = Self::new(&root_path, key, pem, trust_domain, now)?;
        files::write(&directory.join("root.crt"), authority.root_pem.as_bytes(), Readers::All)?;
        Ok(authority)
    }

    /// The authority of a root that is kept elsewhere; `place` is named in errors.
    pub fn of(
        pem: RootPem,
        place: &Path,
        trust_domain: TrustDomain,
        now: OffsetDateTime,
    ) -> Result<Self, CaError> {
        let key = parse_key(place, &pem.key)?;
        Self::new(place, key, pem.certificate, trust_domain, now)
    }

    fn new(
        place: &Path,
        key: KeyPair,
        root_pem: String,
        trust_domain: TrustDomain,
        now: OffsetDateTime,
    ) -> Result<Self, CaError> {
        let (root, root_not_after) = check_root(place, &root_pem, &key, now)?;
        let issuer = Issuer::from_ca_cert_der(&root, key)?;
        Ok(Self { issuer, root, root_pem, root_not_after, trust_domain })
    }

    /// The root, DER.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The root, PEM.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// What is kept, to be put back where it is missing.
    pub fn kept(&self) -> RootPem {
        RootPem { key: self.issuer.key().serialize_pem(), certificate: self.root_pem.clone() }
    }

    /// Until when the root is valid.
    pub fn root_not_after(&self) -> OffsetDateTime {
        self.root_not_after
    }

    /// The trust domain that it signs for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The SPIFFE id that a certificate for the subject carries.
    pub fn spiffe_id(&self, subject: &Subject) -> String {
        match subject {
            Subject::Workload(identity) => identity.to_string(),
            Subject::NodeServer(node) => format!("spiffe://{}/tulle/node/{node}", self.trust_domain),
            Subject::Controller => format!("spiffe://{}/tulle/controller", self.trust_domain),
            Subject::Grant => format!("spiffe://{}/tulle/grant", self.trust_domain),
        }
    }

    /// Signs a leaf. Whether the holder may have it is decided before, in [`crate::sign`].
    pub fn issue(
        &self,
        subject: &Subject,
        key: &impl PublicKeyData,
        ttl: Duration,
        now: OffsetDateTime,
    ) -> Result<Issued, CaError> {
        let mut params = CertificateParams::default();
        params.not_before = now - CLOCK_SKEW;
        params.not_after = (now + ttl).min(self.root_not_after);
        params.serial_number = Some(random_serial());
        // An empty name makes the SAN critical (RFC 5280 4.2.1.6): the SPIFFE id is the only name there is.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(self.spiffe_id(subject).try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages(subject);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        if let Some(name) = dns_name(subject) {
            params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
        }
        let certificate = params.signed_by(key, &self.issuer)?;
        Ok(Issued {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            not_before: params.not_before,
            not_after: params.not_after,
        })
    }
}

/// The DNS name beside the SPIFFE id of those whom an ordinary TLS client (tonic's) must recognise: they are dialled by address.
fn dns_name(subject: &Subject) -> Option<String> {
    match subject {
        Subject::Controller => Some(CONTROLLER_DNS.to_owned()),
        Subject::NodeServer(node) => Some(format!("{node}.{NODE_DNS}")),
        Subject::Workload(_) | Subject::Grant => None,
    }
}

fn usages(subject: &Subject) -> Vec<ExtendedKeyUsagePurpose> {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    match subject {
        Subject::Workload(_) => vec![ServerAuth, ClientAuth],
        Subject::NodeServer(_) | Subject::Controller => vec![ServerAuth],
        Subject::Grant => vec![],
    }
}

fn generate_key(path: &Path) -> Result<KeyPair, CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    files::write(path, key.serialize_pem().as_bytes(), Readers::Owner)?;
    Ok(key)
}

fn load_key(path: &Path, text: &str) -> Result<KeyPair, CaError> {
    if files::is_exposed(path)? {
        return Err(CaError::Exposed(path.to_owned()));
    }
    parse_key(path, text)
}

fn parse_key(path: &Path, text: &str) -> Result<KeyPair, CaError> {
    KeyPair::from_pkcs8_pem_and_sign_algo(text, &PKCS_ECDSA_P256_SHA256).map_err(|_| CaError::Damaged {
        path: path.to_owned(),
        reason: "this is not an EC P-256 key in PKCS#8 PEM; restore it from a backup".to_owned(),
    })
}

fn root_params(trust_domain: &TrustDomain, now: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + ROOT_TTL;
    params.serial_number = Some(random_serial());
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain.as_str());
    params.distinguished_name.push(DnType::CommonName, "Tulle root");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // No intermediates below this root: a leaf can never act as one.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params
}

fn check_root(
    path: &Path,
    pem: &str,
    key: &KeyPair,
    now: OffsetDateTime,
) -> Result<(CertificateDer<'static>, OffsetDateTime), CaError> {
    let damaged = |reason: &str| CaError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    let root = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| damaged(&format!("not a certificate in PEM: {error:?}")))?;
    let not_after = {
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&root).map_err(|_| damaged("not an X.509 certificate"))?;
        if !parsed.is_ca() {
            return Err(damaged("this is not a CA certificate"));
        }
        if parsed.public_key().subject_public_key.as_ref() != key.der_bytes() {
            return Err(damaged("the certificate does not belong to ca.key"));
        }
        parsed.validity().not_after.to_datetime()
    };
    if not_after <= now {
        return Err(damaged("the root has expired"));
    }
    Ok((root, not_after))
}

/// 127 random bits: positive, and never the same twice.
fn random_serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests;
