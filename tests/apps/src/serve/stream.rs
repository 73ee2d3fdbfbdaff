//! Plain TCP services: echo, banner, sum, source, closer.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::pattern::{Pattern, Tally};

const BUFFER: usize = 128 * 1024;

/// What a port does; the number is its distance from the first of the ports.
#[derive(Clone, Copy)]
pub enum Service {
    /// Sends everything back.
    Echo = 0,
    /// Speaks first, then echoes lines.
    Banner = 1,
    /// Reads to the end of file, then answers `COUNT CHECKSUM\n`.
    Sum = 2,
    /// Reads `N\n`, answers with N bytes of the pattern and closes.
    Source = 3,
    /// Closes at once.
    Closer = 4,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Echo, Self::Banner, Self::Sum, Self::Source, Self::Closer];
}

/// Serves every connection of `listener`.
pub async fn serve(listener: TcpListener, service: Service) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, service))),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn connection(stream: TcpStream, service: Service) {
    let _ = stream.set_nodelay(true);
    let ended = match service {
        Service::Echo => echo(stream).await,
        Service::Banner => banner(stream).await,
        Service::Sum => sum(stream).await,
        Service::Source => source(stream).await,
        Service::Closer => Ok(()),
    };
    if let Err(error) = ended
        && std::env::var_os("APP_LOG").is_some()
    {
        eprintln!("mesh-app: {error}");
    }
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..count]).await?;
    }
}

async fn banner(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"220 mesh-app speaks first\r\n").await?;
    echo(stream).await
}

async fn sum(mut stream: TcpStream) -> std::io::Result<()> {
    let mut tally = Tally::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        tally.add(&buffer[..count]);
    }
    let answer = format!("{}\n", tally.summary());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

async fn source(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(32).read_line(&mut line).await?;
    let wanted: u64 = line.trim().parse().map_err(std::io::Error::other)?;
    let pattern = Pattern::get();
    let mut position = 0;
    while position < wanted {
        let piece = pattern.at(position, (wanted - position).min(BUFFER as u64) as usize);
        stream.write_all(piece).await?;
        position += piece.len() as u64;
    }
    stream.shutdown().await
}
