//! Accepting from one listener of one pod, and handing the connection to the worker with the fewest.

use std::{io, net::SocketAddr, rc::Rc, time::Duration};

use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::error::TrySendError,
    time::{sleep, timeout},
};

use super::{Accepted, Door, LaneWork, Listen, Socket, Worker, serve};
use crate::{capture::Place, phase::Stage, proxy::relay::ends::reset_on_close};

/// Runs until the listener is to be closed or the process drains.
pub(super) async fn run(worker: Rc<Worker>, listen: Listen) {
    let phase = worker.rooms.phase.clone();
    tokio::select! {
        biased;
        () = listen.stop.cancelled() => {}
        () = phase.reached(Stage::Draining) => {}
        result = accept_all(&worker, &listen) => if let Err(error) = result {
            tracing::error!(pod = %listen.pod.uid, door = ?listen.door, %error, "a listener broke");
        },
    }
}

async fn accept_all(worker: &Rc<Worker>, listen: &Listen) -> io::Result<()> {
    // Accepted sockets inherit both, which saves two system calls for each.
    let socket = SockRef::from(&listen.listener);
    socket.set_tcp_nodelay(true)?;
    let limits = worker.limits();
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(limits.keepalive_idle)
        .with_interval(limits.keepalive_interval)
        .with_retries(limits.keepalive_probes);
    socket.set_tcp_keepalive(&keepalive)?;
    let listener = TcpListener::from_std(listen.listener.try_clone()?)?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match place(worker, listen).await {
                Some(place) => hand_over(worker, listen, stream, canonical(peer), place),
                None => {
                    worker.counters.connections_refused.inc();
                    reset_on_close(&stream);
                }
            },
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) if is_of_the_process(&error) => {
                worker.counters.accept_paused.inc();
                tracing::warn!(pod = %listen.pod.uid, %error, "accepting pauses");
                sleep(limits.accept_backoff).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// A place in the pod's budget. While there is none, this listener accepts nobody else: the kernel's queue is the queue.
async fn place(worker: &Worker, listen: &Listen) -> Option<Place> {
    let outbound = listen.door == Door::Outbound;
    match listen.pod.try_place(outbound) {
        Some(place) => Some(place),
        None => timeout(worker.limits().accept_queue_wait, listen.pod.place(outbound)).await.ok().flatten(),
    }
}

fn hand_over(worker: &Rc<Worker>, listen: &Listen, stream: TcpStream, peer: SocketAddr, place: Place) {
    let lane = worker.workers.least_loaded(worker.number);
    let target = &worker.workers.lanes[lane];
    let load = LaneWork::begin(&target.load);
    let accepted =
        |stream| Accepted { stream, peer, door: listen.door, pod: listen.pod.clone(), place, load };
    if lane == worker.number {
        serve(worker, accepted(Socket::Here(stream)));
        return;
    }
    // Taken off this runtime, to be put on the other's.
    let Ok(stream) = stream.into_std() else { return };
    match target.accepted.try_send(accepted(Socket::Moved(stream))) {
        Ok(()) => {}
        Err(TrySendError::Full(refused) | TrySendError::Closed(refused)) => {
            worker.counters.hand_over_full.inc();
            if let Socket::Moved(stream) = &refused.stream {
                // An error means that the connection is gone already.
                let _gone = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

/// Errors that concern only the connection that was about to be accepted (accept(2)).
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EPERM
        )
    )
}

fn is_of_the_process(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}
