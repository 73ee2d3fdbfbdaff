//! A CA in the test, and handshakes over a pipe in memory.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use mesh_model::identity::Identity;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Certificates, HandshakeError, Settings, SignError, SignFuture, Signed, Signer, Subject};
use crate::{clock::Clock, config::Limits, telemetry::Counter};

/// What the CA in the test shall do wrong, if anything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Behaviour {
    #[default]
    Good,
    /// Certificates for another identity than asked for.
    OtherName(String),
    /// Certificates over a key of its own.
    OtherKey,
    /// Certificates for clients only.
    ClientsOnly,
    /// No answer, ever.
    Silent,
    /// A refusal.
    Refusing,
}

/// A CA that signs what it is told to.
#[derive(Clone)]
pub(crate) struct TestCa {
    inner: Arc<Inner>,
}

struct Inner {
    root: CertifiedIssuer<'static, KeyPair>,
    clock: Clock,
    life: Duration,
    behaviour: Mutex<Behaviour>,
    signed: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl std::fmt::Debug for TestCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TestCa")
    }
}

impl TestCa {
    /// A new root; leaves live for `life` from now.
    pub(crate) fn new(clock: &Clock, life: Duration) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = CertifiedIssuer::self_signed(params, key).unwrap();
        let inner = Inner {
            root,
            clock: clock.clone(),
            life,
            behaviour: Mutex::default(),
            signed: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.inner.behaviour.lock().unwrap() = behaviour;
    }

    /// How many certificates it signed.
    pub(crate) fn signed(&self) -> usize {
        self.inner.signed.load(Ordering::SeqCst)
    }

    /// How many requests were under way at once, at most.
    pub(crate) fn most_at_once(&self) -> usize {
        self.inner.most_at_once.load(Ordering::SeqCst)
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.inner.root.der().clone()
    }

    pub(crate) fn root_pem(&self) -> String {
        self.inner.root.pem()
    }

    /// A leaf for `key` with that URI.
    pub(crate) fn leaf(&self, uri: &str, key: &KeyPair, usages: &[ExtendedKeyUsagePurpose]) -> Certificate {
        self.params(uri, usages).signed_by(key, &self.inner.root).unwrap()
    }

    fn params(&self, uri: &str, usages: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
        let now = self.inner.clock.now();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        if let Some((_, node)) = uri.split_once("/tulle/node/") {
            // As the controller does, for clients that verify a host name.
            params.subject_alt_names.push(SanType::DnsName(format!("{node}.mesh-node").try_into().unwrap()));
        }
        params.extended_key_usages = usages.to_vec();
        params.not_before = now.into();
        params.not_after = (now + self.inner.life).into();
        params
    }

    fn answer(&self, subject: &Subject, csr: Vec<u8>) -> Result<Signed, SignError> {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let behaviour = self.inner.behaviour.lock().unwrap().clone();
        let uri = match &behaviour {
            Behaviour::OtherName(uri) => uri.clone(),
            Behaviour::Refusing => return Err(SignError::Refused("not on this node".to_owned())),
            _ => subject.uri(),
        };
        let usages: &[ExtendedKeyUsagePurpose] =
            if behaviour == Behaviour::ClientsOnly { &[ClientAuth] } else { &[ServerAuth, ClientAuth] };
        let mut request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr)).unwrap();
        request.params = self.params(&uri, usages);
        let leaf = match behaviour {
            Behaviour::OtherKey => self.leaf(&uri, &KeyPair::generate().unwrap(), usages).der().clone(),
            _ => request.signed_by(&self.inner.root).unwrap().der().clone(),
        };
        self.inner.signed.fetch_add(1, Ordering::SeqCst);
        Ok(Signed { chain: vec![leaf], roots: vec![self.root()] })
    }
}

impl Signer for TestCa {
    fn sign(&self, subject: Subject, csr: Vec<u8>) -> SignFuture {
        let ca = self.clone();
        Box::pin(async move {
            if *ca.inner.behaviour.lock().unwrap() == Behaviour::Silent {
                std::future::pending::<()>().await;
            }
            let at_once = ca.inner.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            ca.inner.most_at_once.fetch_max(at_once, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            ca.inner.at_once.fetch_sub(1, Ordering::SeqCst);
            ca.answer(&subject, csr)
        })
    }
}

/// A store whose certificates come from `ca`.
pub(crate) fn store(ca: &TestCa, clock: &Clock) -> Certificates {
    Certificates::new(Settings {
        signer: Arc::new(ca.clone()),
        clock: clock.clone(),
        limits: Limits::default(),
        issued: Counter::default(),
        failed: Counter::default(),
    })
}

pub(crate) fn identity(account: &str) -> Identity {
    Identity::parse(&format!("spiffe://cluster.local/ns/shop/sa/{account}")).unwrap()
}

/// What each side of a finished handshake saw: the peer's certificates and the negotiated protocol.
pub(crate) struct Seen {
    pub(crate) by_client: Vec<CertificateDer<'static>>,
    pub(crate) by_server: Vec<CertificateDer<'static>>,
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) key_exchange: rustls::NamedGroup,
}

/// A real handshake and one byte each way; what failed, as client and as server see it.
pub(crate) async fn handshake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<Seen, (Option<HandshakeError>, Option<HandshakeError>)> {
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from("10.0.0.1").unwrap();
    let connecting = async {
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_all(b"?").await?;
        // With TLS 1.3 the client hears of its own certificate's refusal only now.
        stream.read_u8().await?;
        Ok::<_, std::io::Error>(stream)
    };
    let accepting = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.read_u8().await?;
        stream.write_all(b"!").await?;
        Ok::<_, std::io::Error>(stream)
    };
    match tokio::join!(connecting, accepting) {
        (Ok(client), Ok(server)) => {
            let (client, server) = (client.get_ref().1, server.get_ref().1);
            Ok(Seen {
                by_client: client.peer_certificates().unwrap_or_default().to_vec(),
                by_server: server.peer_certificates().unwrap_or_default().to_vec(),
                alpn: client.alpn_protocol().map(<[u8]>::to_vec),
                key_exchange: client.negotiated_key_exchange_group().unwrap().name(),
            })
        }
        (client, server) => Err((client.err().map(Into::into), server.err().map(Into::into))),
    }
}

/// Until when the one wanted certificate is valid.
pub(crate) fn not_after(store: &Certificates) -> Option<SystemTime> {
    store.statuses().first().and_then(|status| status.not_after)
}
