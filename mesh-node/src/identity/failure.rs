//! Why a handshake of the mesh failed, in words that say whose certificate is wrong and how.

use std::io;

use rustls::{AlertDescription, CertificateError};

/// A failed handshake.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Theirs has run out.
    #[error("the peer's certificate expired {seconds} s ago")]
    Expired {
        /// How long ago.
        seconds: u64,
    },
    /// Theirs is for later.
    #[error("the peer's certificate is not valid for another {seconds} s")]
    NotYetValid {
        /// How long.
        seconds: u64,
    },
    /// Theirs does not lead to a root of this mesh.
    #[error("the peer's certificate is not signed by a root of this mesh")]
    UnknownIssuer,
    /// Theirs may not be used on that side of a connection.
    #[error("the peer's certificate is not meant for this use")]
    WrongPurpose,
    /// Theirs is bad in another way.
    #[error("the peer's certificate is refused: {0}")]
    BadCertificate(String),
    /// They showed none.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// They refused ours.
    #[error("the peer refused the handshake: {0}")]
    RefusedByPeer(String),
    /// What came is not TLS.
    #[error("the peer does not speak TLS: {0}")]
    NotTls(String),
    /// Something else of TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// The connection broke.
    #[error("the connection broke during the handshake: {0}")]
    Io(String),
}

impl From<&io::Error> for HandshakeError {
    fn from(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => tls.into(),
            None => Self::Io(error.to_string()),
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&rustls::Error> for HandshakeError {
    fn from(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(certificate) => certificate.into(),
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::AlertReceived(alert) => Self::RefusedByPeer(alert_text(*alert)),
            rustls::Error::InvalidMessage(message) => Self::NotTls(format!("{message:?}")),
            other => Self::Tls(other.to_string()),
        }
    }
}

impl From<&CertificateError> for HandshakeError {
    fn from(error: &CertificateError) -> Self {
        match error {
            CertificateError::ExpiredContext { time, not_after } => {
                Self::Expired { seconds: time.as_secs().saturating_sub(not_after.as_secs()) }
            }
            CertificateError::NotValidYetContext { time, not_before } => {
                Self::NotYetValid { seconds: not_before.as_secs().saturating_sub(time.as_secs()) }
            }
            // A bad signature under a known name: a foreign root that calls itself like ours.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::WrongPurpose
            }
            other => Self::BadCertificate(other.to_string()),
        }
    }
}

fn alert_text(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateExpired => "our certificate expired".to_owned(),
        AlertDescription::UnknownCA => "our certificate is not signed by a root it knows".to_owned(),
        AlertDescription::CertificateRequired => "it wants a certificate".to_owned(),
        AlertDescription::UnsupportedCertificate => "our certificate is not meant for this use".to_owned(),
        other => format!("{other:?}"),
    }
}
