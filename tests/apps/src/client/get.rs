//! HTTP requests one after the other, each answer printed as a line of JSON.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;

use super::{Failure, Target, print, within};

/// A longer answer is an error of the call.
const LARGEST_ANSWER: usize = 64 << 20;

/// One request, any number of times.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// `http://name:port/path`
    url: Uri,
    #[command(flatten)]
    pub(super) target: Target,
    /// The method
    #[arg(short = 'X', long, default_value = "GET")]
    method: Method,
    /// `name: value`; `host` replaces the one of the URL
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// The body
    #[arg(short, long, default_value = "")]
    body: String,
    /// How many requests
    #[arg(short = 'n', long, default_value_t = 1)]
    count: u32,
    /// All requests on one connection
    #[arg(short, long)]
    keep_alive: bool,
    /// Ends with 1 unless every answer is 200 to 399
    #[arg(long)]
    fail: bool,
}

/// What came back.
#[derive(Debug, Serialize)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    /// Parsed, if it is JSON; else text.
    body: Value,
    millis: f64,
    local: SocketAddr,
    /// What getpeername() says of a connection that this client opened.
    peer: SocketAddr,
}

/// One line of the result.
#[derive(Serialize)]
#[serde(untagged)]
enum Line {
    Answer(Answer),
    Failure { error: Failure, millis: f64 },
}

/// An open connection.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    local: SocketAddr,
    peer: SocketAddr,
}

/// Makes the requests and prints one line for each.
pub async fn run(options: Options) -> Result<()> {
    let shape = Shape::of(&options)?;
    let addresses = options.target.addresses(&shape.authority)?;
    let mut kept = None;
    let mut all_good = true;
    for _ in 0..options.count {
        let begun = Instant::now();
        let line = match call(&options.target, &shape, &addresses, &mut kept, begun).await {
            Ok(answer) => Line::Answer(answer),
            Err(error) => Line::Failure { error, millis: millis(begun.elapsed()) },
        };
        if !options.keep_alive {
            kept = None;
        }
        all_good &= matches!(&line, Line::Answer(answer) if (200..400).contains(&answer.status));
        print(&line)?;
    }
    ensure!(all_good || !options.fail, "not every call was answered well");
    Ok(())
}

/// A request that can be made again and again.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) authority: String,
    path: String,
    method: Method,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Shape {
    pub(super) fn of(options: &Options) -> Result<Self> {
        Self::new(&options.url, options.method.clone(), &options.headers, &options.body)
    }

    pub(super) fn new(url: &Uri, method: Method, headers: &[String], body: &str) -> Result<Self> {
        let host = url.host().with_context(|| format!("`{url}` has no host"))?;
        let authority = format!("{host}:{}", url.port_u16().unwrap_or(80));
        let mut pairs = Vec::new();
        for header in headers {
            let (name, value) =
                header.split_once(':').with_context(|| format!("`{header}`: expected name: value"))?;
            pairs.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
        if !pairs.iter().any(|(name, _)| name == "host") {
            let shown = url.authority().map_or(authority.as_str(), |authority| authority.as_str());
            pairs.push(("host".to_owned(), shown.to_owned()));
        }
        let path = url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { authority, path, method, headers: pairs, body: Bytes::copy_from_slice(body.as_bytes()) })
    }

    pub(super) fn request(&self) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder().method(&self.method).uri(&self.path);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(Full::new(self.body.clone()))
    }
}

async fn call(
    target: &Target,
    shape: &Shape,
    addresses: &[SocketAddr],
    kept: &mut Option<Connection>,
    begun: Instant,
) -> Result<Answer, Failure> {
    let mut connection = match kept.take() {
        Some(connection) if !connection.sender.is_closed() => connection,
        _ => open(target, addresses).await?,
    };
    within(target.patience(), "send", connection.sender.ready()).await?;
    let request = shape.request().map_err(|error| Failure::of("send", &error))?;
    let response = within(target.patience(), "send", connection.sender.send_request(request)).await?;
    let (head, body) = response.into_parts();
    let collected =
        tokio::time::timeout(target.patience(), Limited::new(body, LARGEST_ANSWER).collect()).await;
    let body = match collected {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => return Err(Failure::of("read", error.as_ref())),
        Err(_) => return Err(Failure::timeout("read")),
    };
    let mut headers = BTreeMap::new();
    for name in head.headers.keys() {
        let all = head.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        headers.insert(name.to_string(), all.collect::<Vec<_>>().join(", "));
    }
    let answer = Answer {
        status: head.status.as_u16(),
        headers,
        body: serde_json::from_slice(&body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned())),
        millis: millis(begun.elapsed()),
        local: connection.local,
        peer: connection.peer,
    };
    *kept = Some(connection);
    Ok(answer)
}

async fn open(target: &Target, addresses: &[SocketAddr]) -> Result<Connection, Failure> {
    let stream = within(target.patience(), "connect", target.connect(addresses)).await?;
    let ends = stream.local_addr().and_then(|local| Ok((local, stream.peer_addr()?)));
    let (local, peer) = ends.map_err(|error| Failure::of("connect", &error))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (sender, connection) = within(target.patience(), "connect", handshake).await?;
    tokio::spawn(connection);
    Ok(Connection { sender, local, peer })
}

fn millis(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1e3
}
