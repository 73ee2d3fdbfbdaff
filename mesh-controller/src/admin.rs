//! Health and metrics over plain HTTP, on loopback by default: nothing here is secret.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{metrics::Metrics, publish::Readiness};

#[derive(Clone)]
struct Views {
    metrics: Metrics,
    readiness: watch::Receiver<Readiness>,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    reasons: Vec<String>,
}

/// Serves until cancelled.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    readiness: watch::Receiver<Readiness>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(Views { metrics, readiness });
    axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// 503 until the source was compiled once. A source that cannot be read any more is said, and is no reason to take the nodes'
/// controller away: what it said last still holds.
async fn readyz(State(views): State<Views>) -> Response {
    let readiness = views.readiness.borrow().clone();
    let mut reasons = Vec::new();
    if !readiness.compiled {
        reasons.push("the source has not been read and compiled yet".to_owned());
    }
    if let Some(error) = readiness.source_error {
        reasons.push(format!("the source cannot be read: {error}"));
    }
    let status = if readiness.compiled { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string(&Ready { ready: readiness.compiled, reasons }) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn metrics_text(State(views): State<Views>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match views.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
