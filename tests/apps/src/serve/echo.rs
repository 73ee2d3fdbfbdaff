//! The echo server: answers with what it saw, and misbehaves on request.
//!
//! `/status/503` `/delay/250` (milliseconds) `/fail/KEY/2` (503 twice, then 200) `/bytes/1000` `/chunked/3` `/reset`
//! (closes without an answer) `/upgrade` (101, then echoes). Any other path: 200 with the request as JSON.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::header::{CONNECTION, UPGRADE};
use hyper::upgrade::Upgraded;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::http1::{self, Body, HangUp, full};
use super::{App, Ends};
use crate::pattern::{Pattern, Tally};

/// More distinct `/fail` keys than a test needs; a server that is asked for more answers 507.
const MOST_KEYS: usize = 10_000;

/// How often each `/fail` key was asked for.
#[derive(Default)]
pub struct Counters(Mutex<HashMap<String, u64>>);

impl Counters {
    /// Counts one call; `None` if there are too many keys.
    fn next(&self, key: &str) -> Option<u64> {
        let mut counts = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if counts.len() >= MOST_KEYS && !counts.contains_key(key) {
            return None;
        }
        let count = counts.entry(key.to_owned()).or_default();
        *count += 1;
        Some(*count)
    }
}

/// Answers one request.
pub async fn answer(mut request: Request<Incoming>, ends: Ends, app: &App) -> Result<Response<Body>, HangUp> {
    let path = request.uri().path().to_owned();
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    let status = match words.as_slice() {
        ["reset"] => return Err(HangUp),
        ["upgrade"] if request.headers().contains_key(UPGRADE) => return Ok(upgrade(&mut request)),
        ["bytes", count] => return Ok(Response::new(full(pattern(count.parse().unwrap_or(0))))),
        ["chunked", count] => return Ok(Response::new(chunked(count.parse().unwrap_or(1)))),
        ["status", code] => code.parse().unwrap_or(StatusCode::BAD_REQUEST),
        ["fail", key, times] => match app.counters.next(key) {
            Some(call) if call <= times.parse().unwrap_or(0) => StatusCode::SERVICE_UNAVAILABLE,
            Some(_) => StatusCode::OK,
            None => StatusCode::INSUFFICIENT_STORAGE,
        },
        ["delay", millis, ..] => {
            tokio::time::sleep(Duration::from_millis(millis.parse().unwrap_or(0))).await;
            StatusCode::OK
        }
        _ => StatusCode::OK,
    };
    Ok(http1::json(status, &describe(request, ends, app).await))
}

async fn describe(request: Request<Incoming>, ends: Ends, app: &App) -> Value {
    let (head, mut body) = request.into_parts();
    let mut tally = Tally::default();
    let mut broken = None;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => frame.data_ref().into_iter().for_each(|piece| tally.add(piece)),
            Err(error) => broken = Some(error.to_string()),
        }
    }
    json!({
        "pod": app.options.pod,
        "node": app.options.node,
        "version": app.options.version,
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "headers": headers(&head.headers),
        "remote": ends.remote,
        "peer": ends.peer,
        "local": ends.local,
        "body_bytes": tally.bytes,
        "body_checksum": tally.checksum(),
        "body_error": broken,
    })
}

/// Names to values; a repeated name has its values joined by `, `.
fn headers(map: &HeaderMap) -> Map<String, Value> {
    let mut all = Map::new();
    for name in map.keys() {
        let values: Vec<_> =
            map.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        all.insert(name.to_string(), Value::String(values.join(", ")));
    }
    all
}

fn pattern(count: usize) -> Bytes {
    Bytes::copy_from_slice(Pattern::get().at(0, count))
}

/// `count` chunks, a moment apart, so that a proxy which waits for the whole body shows.
fn chunked(count: u32) -> Body {
    Chunks { left: count, pause: None }.boxed()
}

/// The state of a chunked answer.
struct Chunks {
    left: u32,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(5))));
        std::task::ready!(pause.as_mut().poll(context));
        self.pause = None;
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"chunk\n")))))
    }
}

fn upgrade(request: &mut Request<Incoming>) -> Response<Body> {
    let wanted = request.headers().get(UPGRADE).cloned();
    let upgrading = hyper::upgrade::on(request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrading.await {
            echo_upgraded(upgraded).await;
        }
    });
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, http::HeaderValue::from_static("upgrade"));
    if let Some(protocol) = wanted {
        response.headers_mut().insert(UPGRADE, protocol);
    }
    response
}

async fn echo_upgraded(upgraded: Upgraded) {
    let mut stream = TokioIo::new(upgraded);
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
