//! HTTP/1.1: requests of captured connections are routed, requests to local pods are asked about.
//!
//! Each request loads the snapshot by itself. Invariants: no request reaches an application of this node without its own
//! [`mesh_model::authz::Permit`]; the normalised path is what is matched and what is forwarded.

pub mod answer;
mod body;
mod exchange;
mod forward;
mod headers;
mod inbound;
mod outbound;
pub mod pool;
mod retry;
mod server;
mod upgrade;

use std::{cell::RefCell, rc::Rc};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::{
    inbound::Inbound,
    outbound::{Captured, Meant},
    prefixed::Prefixed,
};
use crate::worker::Worker;

/// Serves the requests of a captured connection; `prefix` was read from it already.
pub async fn outbound(worker: &Rc<Worker>, captured: Captured, meant: Meant, prefix: Bytes) {
    let Captured { stream, caller, dst, registered, .. } = captured;
    let registered = Rc::new(registered);
    let shared = Rc::<server::Shared>::default();
    let connection = Rc::new(outbound::Connection {
        worker: worker.clone(),
        caller,
        meant,
        dialled: dst.get(),
        registered: registered.clone(),
        shared: shared.clone(),
    });
    let handle = |request| {
        let connection = connection.clone();
        async move { outbound::handle(&connection, request).await }
    };
    server::serve(worker, &registered, Prefixed::new(prefix, stream), shared, handle).await;
}

/// Serves the requests of a connection to a pod of this node. `app` is the application's connection, if it was made already.
pub async fn inbound<D>(
    worker: &Rc<Worker>,
    inbound: Inbound,
    stream: D,
    prefix: Bytes,
    app: Option<TcpStream>,
) where
    D: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let registered = inbound.registered.clone();
    let shared = Rc::<server::Shared>::default();
    let connection = Rc::new(inbound::Connection {
        worker: worker.clone(),
        inbound,
        first: RefCell::new(app),
        app: Rc::default(),
        shared: shared.clone(),
    });
    let handle = |request| {
        let connection = connection.clone();
        async move { inbound::handle(&connection, request).await }
    };
    server::serve(worker, &registered, Prefixed::new(prefix, stream), shared, handle).await;
}
