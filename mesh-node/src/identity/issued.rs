//! A certificate that came back: checked against what was asked, then made into TLS configurations once.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    server::{NoServerSessionStorage, ResolvesServerCert},
    sign::{CertifiedKey, SingleCertAndKey},
    time_provider::TimeProvider,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::KeyUsage;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    csr::Pending,
    peer::uri_names,
    provider,
    signer::{Signed, Subject},
    trust::{MeshVerifier, Roots},
};
use crate::clock::Clock;

/// The protocol of the mesh's TLS connections.
const ALPN: &[u8] = b"h2";

/// Why a certificate that came back is not used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadCertificate {
    /// Nothing came.
    #[error("the controller's reply has no certificate")]
    Empty,
    /// Not readable.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// For someone else.
    #[error("the certificate is for {got:?}, asked was {asked}")]
    WrongName {
        /// Its URIs.
        got: Vec<String>,
        /// Ours.
        asked: String,
    },
    /// Over another key.
    #[error("the certificate is over another key than ours")]
    WrongKey,
    /// Over before it came.
    #[error("the certificate is expired already")]
    Expired,
    /// Does not lead to the roots that came with it.
    #[error("the certificate's chain is not good: {0}")]
    Chain(String),
    /// The roots are unusable.
    #[error("{0}")]
    Roots(String),
    /// rustls refuses key or certificate.
    #[error("TLS cannot use the certificate: {0}")]
    Tls(String),
    /// No key could be made.
    #[error("no key could be made: {0}")]
    Key(String),
}

/// A certificate in use.
pub(super) struct Issued {
    /// For dialling; the peer's chain is verified, its name is for the caller to check.
    pub(super) client: Arc<ClientConfig>,
    /// For accepting; a workload's demands a certificate of the client.
    pub(super) server: Arc<ServerConfig>,
    /// What to tell people.
    pub(super) facts: Facts,
}

/// What to tell people about a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    /// Hexadecimal.
    pub(super) serial: String,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    /// Leaf first.
    pub(super) chain_subjects: Vec<String>,
}

impl Issued {
    /// Checks what came back for `pending` and builds the configurations.
    pub(super) fn new(
        subject: &Subject,
        pending: Pending,
        signed: Signed,
        roots: &Roots,
        clock: &Clock,
    ) -> Result<Self, BadCertificate> {
        let facts = check_leaf(subject, &pending, &signed, clock)?;
        roots.replace(&signed.roots).map_err(BadCertificate::Roots)?;
        check_chain(subject, &signed, roots, &facts, clock)?;
        let certified = CertifiedKey::from_der(signed.chain, pending.into_private_key(), &provider())
            .map_err(|error| BadCertificate::Tls(error.to_string()))?;
        let key: Arc<SingleCertAndKey> = Arc::new(certified.into());
        let tls_error = |error: rustls::Error| BadCertificate::Tls(error.to_string());
        Ok(Self {
            client: Arc::new(client_config(key.clone(), roots, clock).map_err(tls_error)?),
            server: Arc::new(server_config(subject, key, roots, clock).map_err(tls_error)?),
            facts,
        })
    }

    /// Whether it may still be shown. One that is not valid yet may: clocks differ, and the peer's decides.
    pub(super) fn is_usable(&self, now: SystemTime) -> bool {
        now < self.facts.not_after
    }
}

fn check_leaf(
    subject: &Subject,
    pending: &Pending,
    signed: &Signed,
    clock: &Clock,
) -> Result<Facts, BadCertificate> {
    let unreadable = |error: String| BadCertificate::Unreadable(error);
    let leaf = signed.chain.first().ok_or(BadCertificate::Empty)?;
    let got = uri_names(leaf).map_err(unreadable)?;
    let asked = subject.uri();
    if got != [asked.as_str()] {
        return Err(BadCertificate::WrongName { got, asked });
    }
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| unreadable(error.to_string()))?;
    if parsed.public_key().raw != pending.public_key() {
        return Err(BadCertificate::WrongKey);
    }
    let facts = Facts {
        serial: parsed.tbs_certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
        not_before: at(parsed.validity().not_before.timestamp()),
        not_after: at(parsed.validity().not_after.timestamp()),
        chain_subjects: signed.chain.iter().map(subject_text).collect(),
    };
    if facts.not_after <= clock.now() { Err(BadCertificate::Expired) } else { Ok(facts) }
}

/// Whether peers that trust the same roots will take the chain: a workload's on both sides of a connection.
fn check_chain(
    subject: &Subject,
    signed: &Signed,
    roots: &Roots,
    facts: &Facts,
    clock: &Clock,
) -> Result<(), BadCertificate> {
    let (leaf, intermediates) = signed.chain.split_first().ok_or(BadCertificate::Empty)?;
    // A start in the future is a clock that differs, not a bad certificate.
    let moment = clock.now().max(facts.not_before).duration_since(UNIX_EPOCH).unwrap_or_default();
    let moment = UnixTime::since_unix_epoch(moment);
    let usages: &[KeyUsage] = match subject {
        Subject::Workload(_) => &[KeyUsage::server_auth(), KeyUsage::client_auth()],
        Subject::NodeServer(_) => &[KeyUsage::server_auth()],
    };
    for usage in usages.iter().copied() {
        roots
            .verify(leaf, intermediates, usage, moment)
            .map_err(|error| BadCertificate::Chain(error.to_string()))?;
    }
    Ok(())
}

fn client_config(
    key: Arc<SingleCertAndKey>,
    roots: &Roots,
    clock: &Clock,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_details(provider(), time_of(clock))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(MeshVerifier { roots: roots.clone() }))
        .with_client_cert_resolver(key);
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would not look at the certificate again: not at its end, not at a re-used address.
    config.resumption = Resumption::disabled();
    // The peer is known by its SPIFFE id; the address in the clear would help nobody.
    config.enable_sni = false;
    Ok(config)
}

fn server_config(
    subject: &Subject,
    key: Arc<dyn ResolvesServerCert>,
    roots: &Roots,
    clock: &Clock,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_details(provider(), time_of(clock))
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = match subject {
        Subject::Workload(_) => builder
            .with_client_cert_verifier(Arc::new(MeshVerifier { roots: roots.clone() }))
            .with_cert_resolver(key),
        // The inspection API knows its callers by their grants.
        Subject::NodeServer(_) => builder.with_no_client_auth().with_cert_resolver(key),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn subject_text(certificate: &CertificateDer<'static>) -> String {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return "unreadable".to_owned();
    };
    let name = parsed.subject().to_string();
    // Our own leaves have no distinguished name; their URI says who they are.
    if name.is_empty() { uri_names(certificate).unwrap_or_default().join(", ") } else { name }
}

fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn time_of(clock: &Clock) -> Arc<dyn TimeProvider> {
    Arc::new(ClockTime(clock.clone()))
}

#[derive(Debug)]
struct ClockTime(Clock);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        self.0.now().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}
