//! The client: a number of requests to one URL, each answer printed as the suite reads it.
//!
//! All requests go over one connection as long as it holds: a mesh routes requests, not connections. Redirects are answers.

use std::{fmt::Write, time::Duration};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, Uri, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};
use tonic::metadata::MetadataMap;

use crate::grpc::Caller;

/// A longer answer is an error.
const LARGEST_ANSWER: usize = 1 << 20;

/// The requests.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "client", version)]
pub struct Options {
    /// `http://name:port/path` or `grpc://name:port`
    url: Uri,
    /// The method
    #[arg(long, default_value = "GET")]
    method: Method,
    /// `name:value`; `Host` replaces the one of the URL
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// How many requests
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Milliseconds for each step of a request
    #[arg(long, default_value_t = 10_000)]
    patience: u64,
}

/// One answer.
struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: String,
}

/// Makes the requests and prints the answers, a blank line after each.
pub async fn run(options: Options) -> Result<()> {
    let patience = Duration::from_millis(options.patience);
    let authority = options.url.authority().context("the URL has no host")?.to_string();
    match options.url.scheme_str() {
        Some("http") => {
            let mut kept = None;
            for number in 0..options.count {
                let answer = over_http(&options, patience, &mut kept).await?;
                print!("{}", answer.lines(number, &options.url));
            }
        }
        Some("grpc") => {
            let mut caller = Caller::connect(&authority, patience).await.context("cannot connect")?;
            for number in 0..options.count {
                let answer = over_grpc(&options, &mut caller).await?;
                print!("{}", answer.lines(number, &options.url));
            }
        }
        other => bail!("the scheme {other:?} is not known: http or grpc"),
    }
    Ok(())
}

impl Answer {
    fn lines(&self, number: u32, url: &Uri) -> String {
        let mut text = format!("[{number}] Url={url}\n[{number}] StatusCode={}\n", self.status);
        // Writing to a String cannot fail.
        for (name, value) in &self.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            let _ = writeln!(text, "[{number}] ResponseHeader={name}:{value}");
        }
        for line in self.body.lines().filter(|line| !line.trim().is_empty()) {
            let _ = writeln!(text, "[{number} body] {line}");
        }
        text.push('\n');
        text
    }
}

fn headers(options: &Options) -> Result<Vec<(&str, &str)>> {
    let pairs = options.headers.iter().map(|header| {
        let pair = header.split_once(':').with_context(|| format!("`{header}`: expected name:value"));
        pair.map(|(name, value)| (name.trim(), value.trim()))
    });
    pairs.collect()
}

async fn over_http(
    options: &Options,
    patience: Duration,
    kept: &mut Option<SendRequest<Empty<Bytes>>>,
) -> Result<Answer> {
    let mut sender = match ready(kept.take(), patience).await {
        Some(sender) => sender,
        None => timeout(patience, connect(&options.url)).await.context("connecting took too long")??,
    };
    let path = options.url.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder().method(&options.method).uri(path);
    let pairs = headers(options)?;
    if !pairs.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", options.url.authority().map_or("", |host| host.as_str()));
    }
    for (name, value) in pairs {
        request = request.header(name, value);
    }
    let request = request.body(Empty::new())?;
    let answer = timeout(patience, sender.send_request(request)).await.context("no answer in time")??;
    let (head, body) = answer.into_parts();
    let body =
        timeout(patience, Limited::new(body, LARGEST_ANSWER).collect()).await.context("no end in time")?;
    let body = body.map_err(|error| anyhow::anyhow!("the body: {error}"))?.to_bytes();
    *kept = Some(sender);
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// The kept connection, once it can take another request; None: there is none, or it does not hold.
async fn ready(
    kept: Option<SendRequest<Empty<Bytes>>>,
    patience: Duration,
) -> Option<SendRequest<Empty<Bytes>>> {
    let mut sender = kept?;
    timeout(patience, sender.ready()).await.ok()?.ok()?;
    Some(sender)
}

async fn connect(url: &Uri) -> Result<SendRequest<Empty<Bytes>>> {
    let host = url.host().context("the URL has no host")?.trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, url.port_u16().unwrap_or(80)))
        .await
        .with_context(|| format!("cannot connect to {host}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    sender.ready().await?;
    Ok(sender)
}

async fn over_grpc(options: &Options, caller: &mut Caller) -> Result<Answer> {
    let mut metadata = MetadataMap::new();
    for (name, value) in headers(options)? {
        let name: tonic::metadata::AsciiMetadataKey = name.to_ascii_lowercase().parse()?;
        metadata.append(name, value.parse()?);
    }
    // The suite takes the status of HTTP for an answer, and a refusal of gRPC for a failed request.
    let answer = caller.call(metadata).await.context("the call failed")?;
    let (metadata, said, _) = answer.into_parts();
    Ok(Answer { status: 200, headers: metadata.into_headers(), body: said.message })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn many_requests_go_over_one_connection_until_it_ends() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = tokio::spawn(async move {
            // Three answers on each; the first connection says that it ends.
            for last in ["connection: close\r\n", ""] {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                for close in ["", "", last] {
                    let mut buffer = [0; 4096];
                    assert!(stream.read(&mut buffer).await.expect("a request") > 0);
                    let answer = format!("HTTP/1.1 200 OK\r\n{close}content-length: 2\r\n\r\nok");
                    stream.write_all(answer.as_bytes()).await.expect("an answer");
                }
            }
        });
        let options = Options::parse_from(["client", &format!("http://127.0.0.1:{port}/")]);
        let mut kept = None;
        for number in 0..6 {
            let answer = over_http(&options, Duration::from_secs(5), &mut kept).await;
            assert_eq!(answer.expect("an answer").status, 200, "request {number}");
        }
        server.await.expect("both connections, and no third");
    }

    /// As `parseMultipleResponses` splits: two answers are two sections, and a section begins with its own number.
    #[test]
    fn answers_are_sections_without_blank_lines() {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-header-set", http::HeaderValue::from_static("v1"));
        let answer = Answer { status: 302, headers, body: "Hostname=a\n\nHost=b\n".to_owned() };
        let url = Uri::from_static("http://echo/v1");
        let text = answer.lines(0, &url) + &answer.lines(1, &url);
        let sections: Vec<&str> = text.split("\n\n").filter(|section| !section.trim().is_empty()).collect();
        assert_eq!(sections.len(), 2);
        assert_eq!(
            sections[1],
            "[1] Url=http://echo/v1\n[1] StatusCode=302\n[1] ResponseHeader=x-header-set:v1\n[1 body] Hostname=a\n[1 body] Host=b"
        );
    }
}
