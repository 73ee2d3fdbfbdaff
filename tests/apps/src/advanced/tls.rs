//! The certificate of the TLS port.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

/// Takes the files if they are there; else a certificate of its own making, which nobody has reason to trust.
pub fn acceptor(certificate: Option<&Path>, key: Option<&Path>) -> Result<TlsAcceptor> {
    let files = certificate.zip(key).filter(|(certificate, key)| certificate.is_file() && key.is_file());
    let (chain, key) = match files {
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_file_iter(certificate).context("the certificate")?;
            let chain = chain.collect::<Result<Vec<_>, _>>().context("the certificate")?;
            (chain, PrivateKeyDer::from_pem_file(key).context("the key")?)
        }
        None => {
            let made = rcgen::generate_simple_self_signed(["echo".to_owned(), "localhost".to_owned()])
                .context("a certificate")?;
            let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
            (vec![made.cert.der().clone()], key.into())
        }
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("certificate and key")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
