//! HTTP/1.1 connections, and which handler a request goes to.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};

use super::{App, Ends, Mode, echo, shop};

/// A body of any shape; it cannot fail, as it is made here.
pub type Body = BoxBody<Bytes, Infallible>;

/// A client that sends no request for this long is let go.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);

/// Why a connection ends without an answer, on purpose.
#[derive(Debug)]
pub struct HangUp;

impl std::fmt::Display for HangUp {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("hung up on purpose")
    }
}

impl std::error::Error for HangUp {}

/// Serves every connection of `listener`.
pub async fn serve(listener: TcpListener, app: Arc<App>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                let Ok(ends) = Ends::of(&stream, remote) else { continue };
                tokio::spawn(connection(stream, ends, app.clone()));
            }
            // Out of descriptors, most often: asking again at once would only burn the processor.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(stream: TcpStream, ends: Ends, app: Arc<App>) {
    // Latency is measured through this server; the option cannot fail on a TCP socket that is alive.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(request, ends, app.clone()));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served
        && std::env::var_os("APP_LOG").is_some()
    {
        eprintln!("mesh-app: {}: {error}", ends.remote);
    }
}

async fn answer(request: Request<Incoming>, ends: Ends, app: Arc<App>) -> Result<Response<Body>, HangUp> {
    match app.options.mode {
        Mode::Http => Ok(shop::answer(request, ends, &app).await),
        _ => echo::answer(request, ends, &app).await,
    }
}

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// An answer in JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}
