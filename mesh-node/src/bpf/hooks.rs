//! Loading the hooks, or adopting those a previous life of this agent left pinned.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use super::{HooksConfig, KernelError, Origin, OwnKind, VouchOutcome};

/// The hooks of this node, live in the kernel.
pub struct Hooks {}

impl Hooks {
    /// Adopts the pinned hooks of this instance if they are whole and of this ABI, else loads and attaches new ones.
    pub fn open(config: &HooksConfig) -> Result<Hooks, KernelError> {
        let _ = config;
        Err(KernelError::NoObject)
    }

    /// Removes hooks and pins that an agent of this instance with another ABI left. Call it after the wanted pods are
    /// enrolled anew, so that there is no moment in which they are captured by neither. Says how many there were.
    pub fn retire_previous(&self) -> Result<usize, KernelError> {
        Ok(0)
    }

    /// Where the client behind a socket accepted from a pod's *outbound* listener wanted to go. Answers once.
    /// `None` = nobody was captured there (or the map was full): close the connection; it is counted.
    pub fn take_origin(&self, cookie: u64, peer: SocketAddr, local: SocketAddr) -> Option<Origin> {
        let _ = (cookie, peer, local);
        None
    }

    /// Says what a socket of the proxy is for. Must succeed before `connect()`, or the dial would be captured itself.
    pub fn mark_own(&self, socket: &impl AsFd, kind: OwnKind) -> io::Result<()> {
        let _ = (socket, kind);
        Ok(())
    }

    /// What became of a vouched dial; ask after its `connect()` succeeded and before the first byte.
    pub fn vouch_outcome(&self, socket: &impl AsFd) -> VouchOutcome {
        let _ = socket;
        VouchOutcome::Missed
    }
}
