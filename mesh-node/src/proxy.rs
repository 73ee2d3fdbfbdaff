//! The journeys of connections and requests, each one straight function over values that consume each other:
//! `Captured → Plan → Permit → Connected → Outcome`.
//!
//! Invariants: a decision borrows one snapshot; relaying and forwarding demand an [`crate::upstream::Admitted`] or a
//! [`mesh_model::authz::Permit`]; whatever happens, the caller sees an end within the limits of [`crate::config::Limits`].

pub mod buffers;
pub mod detect;
pub mod http;
mod inbound;
mod inbound_hbone;
mod inbound_plain;
mod outbound;
mod outcome;
mod prefixed;
pub mod relay;
mod sniff;

use std::rc::Rc;

use tokio::net::TcpStream;

use crate::{
    conns::{Cut, Direction},
    worker::{Accepted, Door, Socket, Worker},
};

/// One accepted connection, from its first to its last byte.
pub async fn serve(worker: &Rc<Worker>, accepted: Accepted) {
    let Accepted { stream, peer, door, pod, place, load } = accepted;
    let stream = match stream {
        Socket::Here(stream) => Ok(stream),
        Socket::Moved(stream) => TcpStream::from_std(stream),
    };
    let Ok(stream) = stream else { return };
    if pod.is_gone() {
        relay::ends::reset_on_close(&stream);
        return;
    }
    let (direction, protocol) = match door {
        Door::Outbound => (Direction::Outbound, "tcp"),
        Door::Plaintext => (Direction::Inbound, "tcp"),
        Door::Hbone => (Direction::Inbound, "hbone"),
    };
    let registered = worker.conns.register(direction, pod.clone(), peer, protocol);
    match door {
        Door::Outbound => outbound::serve(worker, pod, stream, peer, registered).await,
        Door::Plaintext => inbound_plain::serve(worker, pod, stream, peer, registered).await,
        Door::Hbone => inbound_hbone::serve(worker, pod, stream, peer, registered).await,
    }
    drop((place, load));
}

/// Counts a connection that was ended from outside.
fn count_cut(worker: &Worker, cut: &Cut) {
    if matches!(cut, Cut::Denied(_)) {
        worker.counters.cut_by_policy.inc();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;

    fn size_of_future<'a, F: Future>(_: impl FnOnce(&'a Rc<Worker>, Accepted) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_connection_stays_small() {
        // Thousands of these wait at once: whoever makes one bigger shall know.
        let bytes = size_of_future(serve);
        assert!((1_000..8_192).contains(&bytes), "the future of a connection takes {bytes} bytes");
    }
}
