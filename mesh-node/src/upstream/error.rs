//! Why a destination could not be reached, by whose fault.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use mesh_model::{authz::Denied, identity::Identity};

use crate::{
    identity::{NoCertificate, PeerError},
    telemetry::ResponseFlags,
};

/// A failed dial. Nothing was sent to the application.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    /// The socket could not be made or marked as ours.
    #[error("cannot make a socket for {to}: {error}")]
    Socket {
        /// Where to.
        to: SocketAddr,
        /// What the kernel said.
        error: Arc<io::Error>,
    },
    /// The destination refused, or is not there.
    #[error("cannot connect to {to}: {error}")]
    Connect {
        /// Where to.
        to: SocketAddr,
        /// What the kernel said.
        error: Arc<io::Error>,
    },
    /// A step took too long.
    #[error("{step} with {to} took longer than {limit:?}")]
    TooSlow {
        /// Which step.
        step: &'static str,
        /// With whom.
        to: SocketAddr,
        /// How long it may take.
        limit: Duration,
    },
    /// We have no certificate to show.
    #[error(transparent)]
    NoCertificate(#[from] NoCertificate),
    /// The handshake failed: a foreign or expired certificate, or no TLS at all.
    #[error("TLS handshake with {to} failed: {error}")]
    Tls {
        /// With whom.
        to: SocketAddr,
        /// What rustls said.
        error: Arc<io::Error>,
    },
    /// The peer's certificate does not say who it is.
    #[error("{to}: {error}")]
    Peer {
        /// With whom.
        to: SocketAddr,
        /// What is wrong with it.
        error: PeerError,
    },
    /// A valid certificate of somebody else.
    #[error("{to} is {found}, but the mesh expects {expected} there")]
    WrongIdentity {
        /// Where to.
        to: SocketAddr,
        /// Whom the snapshot has there.
        expected: Identity,
        /// Who answered.
        found: Identity,
    },
    /// HTTP/2 broke before the CONNECT was answered.
    #[error("the tunnel to {to} broke: {error}")]
    Tunnel {
        /// With whom.
        to: SocketAddr,
        /// What h2 said.
        error: Arc<h2::Error>,
        /// The connection was going away: a new one may do.
        stale: bool,
    },
    /// The destination's own side said no, here on this node.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The destination's node said no.
    #[error("the destination's node denied the connection to {to}")]
    DeniedByPeer {
        /// Where to.
        to: SocketAddr,
    },
    /// The destination's node could not reach the application.
    #[error("the destination's node cannot connect to {to}")]
    UnreachableForPeer {
        /// Where to.
        to: SocketAddr,
    },
    /// The destination's node answered with something else.
    #[error("the destination's node answered CONNECT to {to} with {status}")]
    PeerStatus {
        /// Where to.
        to: SocketAddr,
        /// What it answered.
        status: u16,
    },
}

impl DialError {
    /// Whether another endpoint may be tried: not when the answer was "no".
    pub fn may_try_another(&self) -> bool {
        !matches!(self, Self::Denied(_) | Self::DeniedByPeer { .. } | Self::NoCertificate(_))
    }

    /// The flag in metrics and logs.
    pub fn flags(&self) -> ResponseFlags {
        match self {
            Self::Denied(_) | Self::DeniedByPeer { .. } => ResponseFlags::DENIED,
            Self::NoCertificate(_) | Self::WrongIdentity { .. } | Self::Peer { .. } => {
                ResponseFlags::IDENTITY_ERROR
            }
            Self::Tls { .. } => ResponseFlags::TLS_FAILURE,
            _ => ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
        }
    }
}
