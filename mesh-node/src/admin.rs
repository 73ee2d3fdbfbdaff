//! Metrics and health over HTTP, on a thread of its own: it answers while the workers are busy.
//!
//! Invariant: nothing is given away here but `/metrics`, `/healthz` and `/readyz`; connections and their time are bounded.

mod health;

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, sync::Semaphore};

pub use health::{Health, Heartbeat, Readiness};

use crate::{config::Limits, telemetry::Telemetry};

/// The OpenMetrics text format, which Prometheus asks for by preference.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

struct Admin {
    telemetry: Telemetry,
    health: Health,
    limits: Limits,
    places: Arc<Semaphore>,
}

/// Binds the address and serves it until the process ends. Gives the bound address.
pub fn start(
    addr: SocketAddr,
    telemetry: Telemetry,
    health: Health,
    limits: &Limits,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let places = Arc::new(Semaphore::new(limits.admin_connections));
    let admin = Arc::new(Admin { telemetry, health, limits: limits.clone(), places });
    thread::Builder::new().name("admin".to_owned()).spawn(move || {
        if let Err(error) = runtime.block_on(accept_all(listener, admin)) {
            tracing::error!(%error, "metrics and health are no longer served");
        }
    })?;
    Ok(bound)
}

async fn accept_all(listener: TcpListener, admin: Arc<Admin>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        // More callers wait in the kernel's queue.
        let Ok(place) = admin.places.clone().acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, _peer)) => {
                let admin = admin.clone();
                tokio::spawn(async move {
                    let _place = place;
                    serve(stream, admin).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting on the metrics port");
                tokio::time::sleep(admin.limits.accept_backoff).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, admin: Arc<Admin>) {
    let limit = admin.limits.admin_request;
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limit)
        .keep_alive(false)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(|request| {
                let response = answer(&admin, &request);
                async move { Ok::<_, Infallible>(response) }
            }),
        );
    // Header time and answer time; who goes away early is of no interest.
    let _ended = tokio::time::timeout(limit * 2, connection).await;
}

fn answer(admin: &Admin, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return reply(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET only\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" | "/stats/prometheus" => match admin.telemetry.text() {
            Ok(text) => reply(StatusCode::OK, METRICS_TYPE, text),
            Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{error}\n")),
        },
        "/healthz" => match admin.health.liveness() {
            Ok(()) => reply(StatusCode::OK, "text/plain", "ok\n".to_owned()),
            Err(reason) => reply(StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{reason}\n")),
        },
        "/readyz" => {
            let readiness = admin.health.readiness();
            let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            reply(status, "application/json", readiness.json())
        }
        _ => reply(StatusCode::NOT_FOUND, "text/plain", "/metrics /healthz /readyz\n".to_owned()),
    }
}

fn reply(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests;
