//! Certificates that an attacker would like to have, and the TLS ends that show them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use mesh_tests::Pod;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};

/// When a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub enum Validity {
    Now,
    Past,
    Future,
}

/// An authority in the wrong hands.
pub struct Forger {
    issuer: Issuer<'static, KeyPair>,
}

impl Forger {
    /// One of its own.
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Ok(Self { issuer: Issuer::new(params, key) })
    }

    /// The mesh's, from certificate and key.
    pub fn with((certificate, key): &(String, String)) -> Result<Self> {
        let key = KeyPair::from_pem(key)?;
        Ok(Self { issuer: Issuer::from_ca_cert_pem(certificate, key)? })
    }

    fn issue(
        &self,
        id: &str,
        validity: Validity,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let now = time::OffsetDateTime::now_utc();
        let hours = |count: i64| time::Duration::hours(count);
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = match validity {
            Validity::Now => (now - hours(1), now + hours(1)),
            Validity::Past => (now - hours(2), now - hours(1)),
            Validity::Future => (now + hours(1), now + hours(2)),
        };
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| anyhow!(error))?;
        Ok((certificate.der().clone(), key))
    }

    /// A client that shows a certificate for `id`.
    pub fn client(&self, id: &str, validity: Validity) -> Result<Arc<ClientConfig>> {
        let (certificate, key) = self.issue(id, validity)?;
        let mut config = client_builder()?.with_client_auth_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// A client that shows none.
    pub fn anonymous(&self) -> Result<Arc<ClientConfig>> {
        let mut config = client_builder()?.with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// A server that shows a certificate for `id` and takes any client.
    pub fn server(&self, id: &str, validity: Validity) -> Result<Arc<ServerConfig>> {
        let (certificate, key) = self.issue(id, validity)?;
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_client_cert_verifier(Arc::new(Anybody))
                .with_single_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

fn client_builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)))
}

/// A signing request whose key is thrown away, naming `id`.
pub fn csr(id: &str) -> Result<Vec<u8>> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
    Ok(params.serialize_request(&KeyPair::generate()?)?.der().to_vec())
}

/// What a server made of a client's certificate.
#[derive(Debug)]
pub enum Handshake {
    Accepted,
    Refused(String),
}

/// Shakes hands and reads: in TLS 1.3 the server's verdict comes after the client believes to be done.
pub fn handshake(config: Arc<ClientConfig>, to: SocketAddr) -> Result<Handshake> {
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).context("no connection")?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let name = ServerName::IpAddress(to.ip().into());
    let mut tls = rustls::StreamOwned::new(rustls::ClientConnection::new(config, name)?, stream);
    // An HTTP/2 preface and empty SETTINGS: an accepted client is answered with SETTINGS.
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut frame = [0; 9];
    Ok(match tls.write_all(hello).and_then(|()| tls.read_exact(&mut frame)) {
        Ok(()) => Handshake::Accepted,
        Err(error) => Handshake::Refused(format!("{error} {:?}", error.kind())),
    })
}

/// A TLS server in a pod that counts what it is told after the handshake.
pub struct Server {
    stop: Arc<AtomicBool>,
    heard: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Listens.
    pub fn start(pod: &Pod, port: u16, config: Arc<ServerConfig>) -> Result<Self> {
        let listener = pod.inside(|| TcpListener::bind(("0.0.0.0", port)))??;
        listener.set_nonblocking(true)?;
        let (stop, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopping, hearing) = (stop.clone(), heard.clone());
        let thread = thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => drop(hear(stream, &config, &hearing)),
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Ok(Self { stop, heard, thread })
    }

    /// Ends it and says how many bytes it was told.
    pub fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the server panicked"))?;
        Ok(self.heard.load(Ordering::Relaxed))
    }
}

fn hear(stream: TcpStream, config: &Arc<ServerConfig>, heard: &AtomicU64) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut tls = rustls::StreamOwned::new(rustls::ServerConnection::new(config.clone())?, stream);
    let mut buffer = [0; 4096];
    loop {
        let count = tls.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        heard.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Believes everybody: the other side is what is tested.
#[derive(Debug)]
struct Anybody;

fn schemes() -> Vec<SignatureScheme> {
    rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}
