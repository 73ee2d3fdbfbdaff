//! HTTP/1.1.

pub mod answer;
pub mod pool;

use std::rc::Rc;

use bytes::Bytes;
use tokio::{io::{AsyncRead, AsyncWrite}, net::TcpStream};

use super::{inbound::Inbound, outbound::{Captured, Meant}, relay::ends::{End, reset_on_close}};
use crate::worker::Worker;

/// Serves the requests of a captured connection.
pub async fn outbound(worker: &Rc<Worker>, captured: Captured, meant: Meant, prefix: Bytes) {
    let _ = (worker, meant, prefix);
    reset_on_close(&captured.stream);
}

/// Serves the requests of a connection to a pod of this node.
pub async fn inbound<D: End + AsyncRead + AsyncWrite + Unpin + Send + 'static>(worker: &Rc<Worker>, inbound: Inbound, mut stream: D, prefix: Bytes, app: Option<TcpStream>) {
    let _ = (worker, inbound, prefix, app);
    stream.abort();
}
