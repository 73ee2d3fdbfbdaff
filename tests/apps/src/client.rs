//! The client: how it connects, and how it names what went wrong.
//!
//! Invariant: a failed call is a result, not an error of the program; the exit code is 0 whenever the question could
//! be asked at all, unless the caller wants it otherwise (`get --fail`).

pub mod get;
pub mod hold;
pub mod load;
pub mod stream;
pub mod talk;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::hosts::{Family, Hosts};

/// Where to and how, the same for every kind of call.
#[derive(Clone, Debug, clap::Args)]
pub struct Target {
    /// `name=ip[,ip]`, before the table of the environment
    #[arg(long)]
    resolve: Vec<String>,
    /// The family to use if the name has both
    #[arg(long, value_enum, default_value_t)]
    family: Family,
    /// Bind to this address first
    #[arg(long)]
    bind: Option<IpAddr>,
    /// Bind to this device first
    #[arg(long)]
    device: Option<String>,
    /// Reach an IPv4 address through an IPv6 socket (`::ffff:a.b.c.d`)
    #[arg(long)]
    mapped: bool,
    /// Seconds for one call
    #[arg(long, default_value_t = 10.0)]
    timeout: f64,
}

impl Target {
    fn addresses(&self, authority: &str) -> Result<Vec<SocketAddr>> {
        let addresses = Hosts::load(&self.resolve)?.resolve(authority, self.family)?;
        if addresses.is_empty() {
            bail!("`{authority}` has no address of the wanted family");
        }
        Ok(if self.mapped { addresses.into_iter().map(mapped).collect() } else { addresses })
    }

    fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.timeout)
    }

    /// The first address that accepts, in their order, as a simple application does it.
    async fn connect(&self, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match self.connect_to(*address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(device) = &self.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        if let Some(local) = self.bind {
            socket.bind(&SocketAddr::new(local, 0).into())?;
        }
        TcpSocket::from_std_stream(socket.into()).connect(address).await
    }
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// What went wrong, in few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// ECONNREFUSED.
    Refused,
    /// ECONNRESET or EPIPE.
    Reset,
    /// Nothing happened in time.
    Timeout,
    /// Closed before an answer.
    Closed,
    /// No route.
    Unreachable,
    /// EADDRNOTAVAIL: no local port left.
    NoLocalPort,
    /// The other side speaks something else.
    Protocol,
    /// Anything else.
    Other,
}

/// What went wrong, and the words of the system.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    kind: Kind,
    message: String,
    /// `connect`, `send`, `read`: the step that failed.
    step: &'static str,
}

impl Failure {
    fn of(step: &'static str, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut kind = Kind::Other;
        let mut cause = Some(error);
        while let Some(current) = cause {
            if let Some(found) = current.downcast_ref::<io::Error>().and_then(kind_of_io) {
                kind = found;
            } else if let Some(error) = current.downcast_ref::<hyper::Error>() {
                if kind == Kind::Other
                    && (error.is_incomplete_message() || error.is_closed() || error.is_canceled())
                {
                    kind = Kind::Closed;
                } else if kind == Kind::Other && error.is_parse() {
                    kind = Kind::Protocol;
                }
            }
            cause = current.source();
            if let Some(cause) = cause {
                message = format!("{message}: {cause}");
            }
        }
        Self { kind, message, step }
    }

    fn timeout(step: &'static str) -> Self {
        Self { kind: Kind::Timeout, message: "nothing happened in time".to_owned(), step }
    }
}

fn kind_of_io(error: &io::Error) -> Option<Kind> {
    Some(match error.kind() {
        io::ErrorKind::ConnectionRefused => Kind::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            Kind::Reset
        }
        io::ErrorKind::TimedOut => Kind::Timeout,
        io::ErrorKind::UnexpectedEof | io::ErrorKind::NotConnected => Kind::Closed,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Kind::Unreachable,
        io::ErrorKind::AddrNotAvailable => Kind::NoLocalPort,
        _ => return None,
    })
}

/// Runs one step with a bound.
async fn within<T, E: std::error::Error + 'static>(
    bound: Duration,
    step: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    match timeout(bound, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::of(step, &error)),
        Err(_) => Err(Failure::timeout(step)),
    }
}

/// Prints a result of the client as one line of JSON.
fn print(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

/// Whoever holds the other end of stdin says when it is enough.
async fn end_of_stdin() {
    let mut buffer = [0; 64];
    let mut stdin = tokio::io::stdin();
    while matches!(stdin.read(&mut buffer).await, Ok(1..)) {}
}
