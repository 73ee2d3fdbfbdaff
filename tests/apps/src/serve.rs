//! The application of a pod: listens on its ports until it is killed.
//!
//! Invariant: every listener is bound before `ready` is printed, so whoever waits for that line can call at once.

mod echo;
mod health;
mod http1;
mod shop;
mod stream;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::hosts::Hosts;

/// What this application does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Answers with what it saw, over HTTP and on five TCP ports.
    #[default]
    Echo,
    /// A part of the shop: answers, and asks other parts.
    Http,
    /// A ledger of the shop: sends back every line.
    Tcp,
    /// Listens nowhere; somebody else calls from its pod.
    Client,
}

/// What runs in the pod, and what it says about itself.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// What it does
    #[arg(long, env = "SHOP_MODE", value_enum, default_value_t)]
    mode: Mode,
    /// The application it says it is
    #[arg(long, env = "SHOP_APP", default_value = "echo")]
    app: String,
    /// The version it says it is
    #[arg(long, env = "SHOP_VERSION", default_value = "v1")]
    version: String,
    /// Where it listens, on all addresses
    #[arg(long, env = "SHOP_PORT", value_delimiter = ',', default_value = "80")]
    port: Vec<u16>,
    /// The services that it asks for each request: `details,reviews`; addresses from TULLE_HOSTS or, as Kubernetes gives
    /// them, from DETAILS_SERVICE_HOST and DETAILS_SERVICE_PORT
    #[arg(long, env = "SHOP_CALLS", value_delimiter = ',')]
    calls: Vec<String>,
    /// Echo: HTTP on 127.0.0.1 and ::1 alone
    #[arg(long, env = "LOOPBACK_PORTS", value_delimiter = ',')]
    loopback: Vec<u16>,
    /// Echo: five ports from here on: echo, banner (the server speaks first), count and checksum after end of file,
    /// source (answers `N\n` with N bytes), and one that closes at once; 0: none of them
    #[arg(long, env = "TCP_BASE", default_value_t = 9000)]
    tcp_base: u16,
    /// Where `grpc.health.v1.Health/Check` says SERVING; 0: nowhere
    #[arg(long, env = "HEALTH_PORT", default_value_t = 0)]
    health_port: u16,
    /// The name of the pod
    #[arg(long, env = "POD_NAME", default_value = "")]
    pod: String,
    /// The node it runs on
    #[arg(long, env = "NODE_NAME", default_value = "")]
    node: String,
}

/// What every handler knows.
struct App {
    options: Options,
    hosts: Hosts,
    counters: echo::Counters,
}

/// Both ends of a connection, as the application sees them.
#[derive(Clone, Copy, Debug, Serialize)]
struct Ends {
    /// What accept() said.
    remote: SocketAddr,
    /// What getpeername() says.
    peer: SocketAddr,
    /// What getsockname() says.
    local: SocketAddr,
}

impl Ends {
    fn of(stream: &TcpStream, accepted: SocketAddr) -> std::io::Result<Self> {
        Ok(Self {
            remote: plain(accepted),
            peer: plain(stream.peer_addr()?),
            local: plain(stream.local_addr()?),
        })
    }
}

/// `::ffff:10.0.0.1` as `10.0.0.1`: the listeners take both families on one socket.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Listens on everything, says `ready`, and serves for ever.
pub async fn run(options: Options) -> Result<()> {
    let app = Arc::new(App {
        hosts: Hosts::load(&[])?,
        options: options.clone(),
        counters: echo::Counters::default(),
    });
    for port in &options.port {
        match options.mode {
            Mode::Echo | Mode::Http => {
                drop(tokio::spawn(http1::serve(listen_everywhere(*port)?, app.clone())))
            }
            Mode::Tcp => drop(tokio::spawn(stream::serve(listen_everywhere(*port)?, stream::Service::Echo))),
            Mode::Client => {}
        }
    }
    for port in &options.loopback {
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            match listen(SocketAddr::new(address, *port)) {
                Ok(listener) => drop(tokio::spawn(http1::serve(listener, app.clone()))),
                Err(error) => eprintln!("mesh-app: {error:#}"),
            }
        }
    }
    if options.tcp_base != 0 && options.mode == Mode::Echo {
        for service in stream::Service::ALL {
            tokio::spawn(stream::serve(listen_everywhere(options.tcp_base + service as u16)?, service));
        }
    }
    if options.health_port != 0 {
        tokio::spawn(health::serve(listen_everywhere(options.health_port)?));
    }
    println!("ready");
    std::future::pending().await
}

/// One socket for both families; IPv4 alone where the kernel has no IPv6.
fn listen_everywhere(port: u16) -> Result<TcpListener> {
    listen((Ipv6Addr::UNSPECIFIED, port).into()).or_else(|_| listen((Ipv4Addr::UNSPECIFIED, port).into()))
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let bound = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(4096)?;
        TcpListener::from_std(socket.into())
    };
    bound().with_context(|| format!("cannot listen on {address}"))
}
