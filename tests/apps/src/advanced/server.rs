//! The server: HTTP/1.1 with and without TLS, gRPC, and a TCP port that sends back what it gets.

use std::{convert::Infallible, net::Ipv6Addr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, header::HOST, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    grpc,
    report::{self, Seen},
    tls,
};

/// A peer that says nothing for this long is let go.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where it listens.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "echo-advanced", version)]
pub struct Options {
    /// HTTP/1.1
    #[arg(long)]
    port: Vec<u16>,
    /// Sends back what it gets
    #[arg(long)]
    tcp: Vec<u16>,
    /// gRPC without TLS
    #[arg(long)]
    grpc: Vec<u16>,
    /// Which of the ports speak TLS
    #[arg(long)]
    tls: Vec<u16>,
    /// The certificate, PEM; one is made if the file is not there
    #[arg(long)]
    crt: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long)]
    key: Option<PathBuf>,
}

/// Listens everywhere and serves for ever; with no port at all, it only waits.
pub async fn run(options: Options) -> Result<()> {
    let hostname: Arc<str> = report::hostname().into();
    let mut acceptor = None;
    for port in &options.port {
        let listener = listen(*port).await?;
        let with_tls = options.tls.contains(port);
        if with_tls && acceptor.is_none() {
            acceptor = Some(tls::acceptor(options.crt.as_deref(), options.key.as_deref())?);
        }
        let acceptor = acceptor.clone().filter(|_| with_tls);
        tokio::spawn(serve(listener, Here { port: *port, hostname: hostname.clone() }, acceptor));
    }
    for port in &options.grpc {
        tokio::spawn(grpc::serve(listen(*port).await?, *port, hostname.clone()));
    }
    for port in &options.tcp {
        tokio::spawn(send_back(listen(*port).await?));
    }
    println!("ready");
    std::future::pending().await
}

/// One socket for both families, or IPv4 alone where there is no IPv6.
async fn listen(port: u16) -> Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await.with_context(|| format!("port {port}")),
    }
}

/// What a handler says of itself.
#[derive(Clone)]
struct Here {
    port: u16,
    hostname: Arc<str>,
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // Out of descriptors, most often: asking again at once would only burn the processor.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve(listener: TcpListener, here: Here, acceptor: Option<TlsAcceptor>) {
    loop {
        let stream = accept(&listener).await;
        let (here, acceptor) = (here.clone(), acceptor.clone());
        tokio::spawn(async move {
            let remote = stream.peer_addr().ok();
            match acceptor {
                None => http(stream, here, remote, String::new()).await,
                Some(acceptor) => {
                    let Ok(Ok(stream)) = timeout(PATIENCE, acceptor.accept(stream)).await else { return };
                    let alpn = stream.get_ref().1.alpn_protocol().unwrap_or_default().to_vec();
                    http(stream, here, remote, String::from_utf8_lossy(&alpn).into_owned()).await;
                }
            }
        });
    }
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    here: Here,
    remote: Option<std::net::SocketAddr>,
    alpn: String,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        let seen = Seen {
            method: request.method().as_str(),
            url: request.uri().path_and_query().map_or("/", |url| url.as_str()),
            host: host.unwrap_or_default(),
            protocol: "HTTP/1.1",
            alpn: &alpn,
            port: here.port,
            remote,
            headers: request.headers(),
        };
        let mut response = Response::new(Full::new(Bytes::from(seen.lines(&here.hostname))));
        let text = http::HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(http::header::CONTENT_TYPE, text);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    // How a connection ends is its peer's affair.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn send_back(listener: TcpListener) {
    loop {
        let mut stream = accept(&listener).await;
        tokio::spawn(async move {
            let (mut from, mut to) = stream.split();
            tokio::io::copy(&mut from, &mut to).await
        });
    }
}
