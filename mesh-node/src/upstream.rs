//! Picks an endpoint, dials it or re-uses a tunnel to its node, and gives a [`Connected`].
//!
//! Invariants: a workload published as HBONE is never dialled in plaintext; a workload of this node is dialled directly only with
//! the [`Permit`] of its own side and only if the kernel honoured the vouch; a tunnel's peer has exactly the identity that the
//! snapshot gives the destination.

pub mod dial;
mod error;
pub mod hbone;
pub mod pick;
pub mod stream;

use std::{net::SocketAddr, sync::Arc};

use mesh_model::{addr::ClientAddr, authz::Permit, identity::Identity, workload::Workload};

pub use error::DialError;
use stream::UpstreamStream;

use crate::capture::LocalPod;

/// On whose word bytes may flow. Each way of making one is a way in which the destination was asked, or has nobody to ask.
#[derive(Clone, Debug)]
pub enum Admitted {
    /// The destination's side said yes here, on this node.
    ByPermit(Permit),
    /// The destination's own node answered the CONNECT with 200, at the other end of a tunnel whose peer is this.
    ByPeer(Identity),
    /// Plaintext to where no mesh is: nobody to ask.
    OutsideMesh,
}

/// Who dials: a captured pod of this node, on behalf of one client of it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The pod from whose network namespace is dialled.
    pub pod: Arc<LocalPod>,
    /// The workload as the deciding snapshot has it.
    pub workload: Arc<Workload>,
    /// The client's socket.
    pub client: ClientAddr,
    /// The client's socket was bound to this device.
    pub ifindex: Option<u32>,
}

/// How the bytes travel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    /// Straight to the application of this node, with a vouch.
    Vouched,
    /// In a tunnel.
    Tunnel,
    /// In plaintext, out of the mesh.
    Plaintext,
}

/// A connection to the destination that may carry bytes.
pub struct Connected {
    /// The bytes.
    pub stream: UpstreamStream,
    /// On whose word.
    pub admitted: Admitted,
    /// How they travel.
    pub transport: Transport,
    /// What was dialled in the end.
    pub upstream: SocketAddr,
    /// From where.
    pub local: Option<SocketAddr>,
    /// Proven in the handshake, or vouched for.
    pub peer: Option<Identity>,
}
