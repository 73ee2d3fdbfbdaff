//! A long stream with a checksum: fetched from a source port, or sent to a sum port.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Failure, Target, print, within};
use crate::pattern::{Pattern, Tally};

const BUFFER: usize = 256 * 1024;

/// How much, and which way.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// `name:port`
    authority: String,
    #[command(flatten)]
    target: Target,
    /// How many bytes
    #[arg(long, default_value_t = 1 << 30)]
    bytes: u64,
    /// Send instead of fetch
    #[arg(long)]
    upload: bool,
}

/// Moves the stream and prints whether it arrived whole.
pub async fn run(options: Options) -> Result<()> {
    let addresses = options.target.addresses(&options.authority)?;
    let begun = Instant::now();
    let moved =
        if options.upload { upload(&options, &addresses).await } else { fetch(&options, &addresses).await };
    let seconds = begun.elapsed().as_secs_f64();
    let (got, error) = match moved {
        Ok(got) => (Some(got), None),
        Err(failure) => (None, Some(failure)),
    };
    let expected = expected(options.bytes);
    print(&json!({
        "whole": got.as_deref() == Some(expected.as_str()),
        "got": got,
        "expected": expected,
        "error": error,
        "seconds": seconds,
        "gbit": options.bytes as f64 * 8.0 / 1e9 / seconds.max(1e-9),
    }))
}

/// `COUNT CHECKSUM` of the first `bytes` of the pattern.
fn expected(bytes: u64) -> String {
    let pattern = Pattern::get();
    let mut tally = Tally::default();
    while tally.bytes < bytes {
        let piece = pattern.at(tally.bytes, (bytes - tally.bytes).min(BUFFER as u64) as usize);
        tally.add(piece);
    }
    tally.summary()
}

async fn fetch(options: &Options, addresses: &[SocketAddr]) -> Result<String, Failure> {
    let patience = options.target.patience();
    let mut stream = within(patience, "connect", options.target.connect(addresses)).await?;
    let request = format!("{}\n", options.bytes);
    within(patience, "send", stream.write_all(request.as_bytes())).await?;
    let mut tally = Tally::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = within(patience, "read", stream.read(&mut buffer)).await?;
        if count == 0 {
            return Ok(tally.summary());
        }
        tally.add(&buffer[..count]);
    }
}

async fn upload(options: &Options, addresses: &[SocketAddr]) -> Result<String, Failure> {
    let patience = options.target.patience();
    let mut stream = within(patience, "connect", options.target.connect(addresses)).await?;
    let pattern = Pattern::get();
    let mut position = 0;
    while position < options.bytes {
        let piece = pattern.at(position, (options.bytes - position).min(BUFFER as u64) as usize);
        within(patience, "send", stream.write_all(piece)).await?;
        position += piece.len() as u64;
    }
    within(patience, "send", stream.shutdown()).await?;
    let mut answer = String::new();
    // The other side may still be hashing what is in flight.
    within(patience + Duration::from_secs(30), "read", stream.read_to_string(&mut answer)).await?;
    Ok(answer.trim().to_owned())
}
