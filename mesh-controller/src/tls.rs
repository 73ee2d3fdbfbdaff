//! The controller's TLS side: TLS 1.3 only, HTTP/2 only, its own certificate renewed in the process.
//!
//! Invariant: a connection that does not finish its handshake in time, or comes when all places are taken, is closed and counted;
//! accepting never stops, also when the process runs out of descriptors.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::{
    ca::{Authority, CaError, Subject},
    metrics::Metrics,
};

/// How long our own certificates live; they are renewed at half of it.
pub const OWN_TTL: Duration = Duration::from_secs(24 * 3600);
/// From accept to the end of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections at a time: nodes have one or two, meshctl a few.
const MAX_CONNECTIONS: usize = 8192;
/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The certificate in use.
pub struct OwnCertificate {
    current: ArcSwap<CertifiedKey>,
}

impl OwnCertificate {
    /// A fresh key with its certificate.
    pub fn new(authority: &Authority, now: OffsetDateTime) -> Result<Self, CaError> {
        Ok(Self { current: ArcSwap::from_pointee(certified(authority, now)?) })
    }

    /// Replaces key and certificate; connections that are open keep theirs.
    pub fn renew(&self, authority: &Authority, now: OffsetDateTime) -> Result<(), CaError> {
        self.current.store(Arc::new(certified(authority, now)?));
        Ok(())
    }
}

impl std::fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OwnCertificate")
    }
}

impl ResolvesServerCert for OwnCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn certified(authority: &Authority, now: OffsetDateTime) -> Result<CertifiedKey, CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let issued = authority.issue(&Subject::Controller, &key, OWN_TTL, now)?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = aws_lc_rs::sign::any_ecdsa_type(&der)
        .map_err(|_| CaError::Certificate(rcgen::Error::UnsupportedSignatureAlgorithm))?;
    Ok(CertifiedKey::new(vec![issued.certificate], signing))
}

/// The server's settings.
pub fn server_config(certificate: Arc<OwnCertificate>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Accepts until cancelled; finished handshakes come out of the stream.
pub fn accept(
    listener: TcpListener,
    config: ServerConfig,
    metrics: Metrics,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<Accepted>> {
    let (finished, stream) = mpsc::channel(64);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            let tcp = match accepted {
                Ok((tcp, _)) => tcp,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                metrics.tls_failures.inc();
                continue;
            };
            let (acceptor, finished, metrics) = (acceptor.clone(), finished.clone(), metrics.clone());
            tokio::spawn(async move {
                match handshake(acceptor, tcp).await {
                    // The server has gone if this fails.
                    Ok(io) => drop(finished.send(Ok(Accepted::new(io, place))).await),
                    Err(error) => {
                        metrics.tls_failures.inc();
                        tracing::debug!(%error, "TLS handshake");
                    }
                }
            });
        }
    });
    ReceiverStream::new(stream)
}

async fn handshake(acceptor: TlsAcceptor, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    tcp.set_nodelay(true)?;
    timeout(HANDSHAKE, acceptor.accept(tcp)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// A connection that has its handshake behind it, and the place that it takes.
#[derive(Debug)]
pub struct Accepted {
    io: TlsStream<TcpStream>,
    /// Until the first byte came: a client that says nothing keeps no place. Later HTTP/2's pings find it out.
    silence: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Accepted {
    fn new(io: TlsStream<TcpStream>, place: OwnedSemaphorePermit) -> Self {
        Self { io, silence: Some(Box::pin(sleep(HANDSHAKE))), _place: place }
    }
}

impl Connected for Accepted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.io.get_ref().0.connect_info()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if read.is_ready() {
            self.silence = None;
        } else if self.silence.as_mut().is_some_and(|silence| silence.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use mesh_model::identity::TrustDomain;
    use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
    use tokio_rustls::TlsConnector;
    use tokio_stream::StreamExt;

    use super::*;

    async fn dial(
        address: std::net::SocketAddr,
        authority: &Authority,
        version: &'static SupportedProtocolVersion,
        name: &'static str,
    ) -> io::Result<rustls::ProtocolVersion> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.root().clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(address).await?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name.try_into().unwrap(), tcp).await?;
        Ok(stream.get_ref().1.protocol_version().unwrap())
    }

    #[tokio::test]
    async fn only_tls_13_with_a_certificate_that_is_renewed() {
        let directory = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let authority = Authority::open(directory.path(), TrustDomain::default(), now).unwrap();
        let certificate = Arc::new(OwnCertificate::new(&authority, now).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Metrics::new();
        let stop = CancellationToken::new();
        let config = server_config(certificate.clone()).unwrap();
        let mut accepted = accept(listener, config, metrics.clone(), stop.clone());

        let new = dial(address, &authority, &rustls::version::TLS13, "mesh-controller").await.unwrap();
        assert_eq!(new, rustls::ProtocolVersion::TLSv1_3);
        accepted.next().await.unwrap().unwrap();
        dial(address, &authority, &rustls::version::TLS12, "mesh-controller").await.unwrap_err();
        dial(address, &authority, &rustls::version::TLS13, "elsewhere").await.unwrap_err();

        let before = certificate.current.load().cert.clone();
        certificate.renew(&authority, now).unwrap();
        assert_ne!(before, certificate.current.load().cert);
        dial(address, &authority, &rustls::version::TLS13, "mesh-controller").await.unwrap();
        assert!(metrics.tls_failures.get() >= 1);
        stop.cancel();
    }
}
