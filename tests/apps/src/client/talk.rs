//! One TCP connection that follows a script: `send:TEXT` `until:TEXT` `read:COUNT` `shut` `eof` `wait:MILLIS`.
//!
//! `\r`, `\n`, `\0` and `\\` in TEXT mean what they mean in C. The result has everything that was read.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Failure, Target, print, within};

/// More than any answer of a test; a script that reads more has failed.
const MOST_READ: usize = 16 << 20;

/// Where to, and the script.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// `name:port`
    authority: String,
    #[command(flatten)]
    target: Target,
    /// The steps
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Send(Vec<u8>),
    Until(Vec<u8>),
    Read(usize),
    Shut,
    Eof,
    Wait(Duration),
}

impl FromStr for Step {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.split_once(':').unwrap_or((text, "")) {
            ("send", text) => Self::Send(unescape(text)),
            ("until", text) => Self::Until(unescape(text)),
            ("read", count) => Self::Read(count.parse()?),
            ("wait", millis) => Self::Wait(Duration::from_millis(millis.parse()?)),
            ("shut", "") => Self::Shut,
            ("eof", "") => Self::Eof,
            _ => bail!("`{text}` is no step"),
        })
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b'0') => 0,
                Some(other) => other,
                None => b'\\',
            },
            other => other,
        });
    }
    bytes
}

/// What happened.
#[derive(Serialize, Default)]
struct Report {
    /// Everything that was read; bytes that are not UTF-8 are replaced.
    received: String,
    received_bytes: usize,
    /// Steps that succeeded.
    steps: usize,
    error: Option<Failure>,
    /// The other side has closed in order.
    eof: bool,
    connect_millis: f64,
    millis: f64,
    local: Option<SocketAddr>,
    peer: Option<SocketAddr>,
}

/// Follows the script and prints what happened.
pub async fn run(options: Options) -> Result<()> {
    let addresses = options.target.addresses(&options.authority)?;
    let begun = Instant::now();
    let mut report = Report::default();
    let mut received = Vec::new();
    match within(options.target.patience(), "connect", options.target.connect(&addresses)).await {
        Ok(mut stream) => {
            report.connect_millis = begun.elapsed().as_secs_f64() * 1e3;
            report.local = stream.local_addr().ok();
            report.peer = stream.peer_addr().ok();
            for step in &options.steps {
                if let Err(error) =
                    follow(step, &mut stream, &mut received, &mut report.eof, options.target.patience()).await
                {
                    report.error = Some(error);
                    break;
                }
                report.steps += 1;
            }
        }
        Err(error) => report.error = Some(error),
    }
    report.millis = begun.elapsed().as_secs_f64() * 1e3;
    report.received_bytes = received.len();
    report.received = String::from_utf8_lossy(&received).into_owned();
    print(&report)
}

async fn follow(
    step: &Step,
    stream: &mut TcpStream,
    received: &mut Vec<u8>,
    eof: &mut bool,
    patience: Duration,
) -> Result<(), Failure> {
    let before = received.len();
    match step {
        Step::Send(bytes) => within(patience, "send", stream.write_all(bytes)).await,
        Step::Shut => within(patience, "shut", stream.shutdown()).await,
        Step::Wait(pause) => {
            tokio::time::sleep(*pause).await;
            Ok(())
        }
        Step::Read(count) => read(stream, received, eof, patience, |all| all.len() - before >= *count).await,
        Step::Until(text) => {
            read(stream, received, eof, patience, |all| {
                all[before..].windows(text.len()).any(|part| part == text)
            })
            .await
        }
        Step::Eof => match read(stream, received, eof, patience, |_| false).await {
            Err(_) if *eof => Ok(()),
            other => other,
        },
    }
}

/// Reads until `enough`; the end of the stream before that is a failure.
async fn read(
    stream: &mut TcpStream,
    received: &mut Vec<u8>,
    eof: &mut bool,
    patience: Duration,
    enough: impl Fn(&[u8]) -> bool,
) -> Result<(), Failure> {
    let mut buffer = vec![0; 64 * 1024];
    while !enough(received) {
        let count = within(patience, "read", stream.read(&mut buffer)).await?;
        if count == 0 {
            *eof = true;
            return Err(Failure::of("read", &std::io::Error::from(std::io::ErrorKind::UnexpectedEof)));
        }
        received.extend_from_slice(&buffer[..count]);
        if received.len() > MOST_READ {
            return Err(Failure::of("read", &std::io::Error::other("too much")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read() {
        assert_eq!("send:a:b\\r\\n".parse::<Step>().unwrap(), Step::Send(b"a:b\r\n".to_vec()));
        assert_eq!("shut".parse::<Step>().unwrap(), Step::Shut);
        assert!("sing".parse::<Step>().is_err());
    }
}
