//! One TCP connection kept in use against an echo port, until it breaks or stdin ends.
//!
//! `open` is printed after the first echo; the last line says how it ended and when.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Failure, Target, end_of_stdin, print, within};

/// Where to, and how often.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// `name:port`
    authority: String,
    #[command(flatten)]
    target: Target,
    /// Milliseconds between two echoes
    #[arg(long, default_value_t = 20)]
    every: u64,
}

/// Holds the connection and prints how it ended.
pub async fn run(options: Options) -> Result<()> {
    let addresses = options.target.addresses(&options.authority)?;
    let begun = Instant::now();
    let mut echoes = 0_u64;
    let ended = tokio::select! {
        failure = keep_busy(&options, &addresses, &mut echoes) => Some(failure),
        () = end_of_stdin() => None,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    print(&json!({
        "broken": ended.is_some(),
        "error": ended,
        "echoes": echoes,
        "seconds": begun.elapsed().as_secs_f64(),
        "ended_unix_millis": now.as_millis() as u64,
    }))
}

async fn keep_busy(options: &Options, addresses: &[std::net::SocketAddr], echoes: &mut u64) -> Failure {
    let mut stream =
        match within(options.target.patience(), "connect", options.target.connect(addresses)).await {
            Ok(stream) => stream,
            Err(failure) => return failure,
        };
    loop {
        if let Err(failure) = echo(&mut stream, options.target.patience()).await {
            return failure;
        }
        *echoes += 1;
        if *echoes == 1 {
            println!("open");
        }
        tokio::time::sleep(Duration::from_millis(options.every)).await;
    }
}

async fn echo(stream: &mut TcpStream, patience: Duration) -> Result<(), Failure> {
    within(patience, "send", stream.write_all(b"still there?\n")).await?;
    let mut back = [0; 13];
    within(patience, "read", stream.read_exact(&mut back)).await?;
    Ok(())
}
