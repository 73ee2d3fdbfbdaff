//! The shop: productpage asks details and reviews, reviews asks ratings; plain HTTP by service name.
//!
//! The answer of each part contains the answers of the parts it asked, so that one JSON shows the whole path. A part
//! that could not be reached is an `error` inside an answer that is still 200: the page shows what it has.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::http1::{self, Body};
use super::{App, Ends};
use crate::hosts::Family;

/// What an application passes on, so that routes by user and traces work.
const FORWARDED: &[&str] = &[
    "end-user",
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "x-b3-traceid",
    "user-agent",
    "cookie",
];

/// The page gives up on one of its parts after this.
const PATIENCE: Duration = Duration::from_secs(10);

/// Parts answer in kilobytes; more is an error.
const LARGEST_ANSWER: usize = 1 << 20;

/// Answers one request.
pub async fn answer(request: Request<Incoming>, ends: Ends, app: &App) -> Response<Body> {
    let options = &app.options;
    if request.uri().path() == "/health" {
        return http1::json(StatusCode::OK, &json!({ "status": "healthy" }));
    }
    // One after the other, as the original page does: its latency is the sum of its parts.
    let mut parts = Map::new();
    for part in &options.calls {
        let said = ask(app, part, request.headers()).await;
        parts.insert(part.clone(), said.unwrap_or_else(|error| json!({ "error": format!("{error:#}") })));
    }
    let mut page = json!({
        "app": options.app,
        "version": options.version,
        "pod": options.pod,
        "node": options.node,
        "client": ends.remote,
        "path": request.uri().path(),
        "attempt": request.headers().get("x-envoy-attempt-count").and_then(|count| count.to_str().ok()),
        "says": says(&options.app, &options.version),
    });
    if let Value::Object(page) = &mut page {
        page.extend(parts);
    }
    http1::json(StatusCode::OK, &page)
}

fn says(app: &str, version: &str) -> Value {
    match (app, version) {
        ("productpage", _) => json!("The Comedy of Errors"),
        ("details", _) => json!({ "author": "William Shakespeare", "year": 1595, "pages": 200 }),
        ("ratings", _) => json!({ "Reviewer1": 5, "Reviewer2": 4 }),
        ("reviews", "v2") => json!({ "stars": "black" }),
        ("reviews", "v3") => json!({ "stars": "red" }),
        _ => Value::Null,
    }
}

async fn ask(app: &App, part: &str, headers: &HeaderMap) -> anyhow::Result<Value> {
    let authority = app.hosts.service(part);
    let call = async {
        let addresses = app.hosts.resolve(&authority, Family::Any)?;
        let stream = TcpStream::connect(addresses.as_slice()).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::get(format!("/{part}/0")).header("host", &authority);
        for name in FORWARDED {
            if let Some(value) = headers.get(*name) {
                request = request.header(*name, value);
            }
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let status = response.status();
        let body = http_body_util::Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        anyhow::ensure!(status.is_success(), "{authority}: {status} {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    };
    timeout(PATIENCE, call).await?
}
