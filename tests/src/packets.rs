//! What is on the wire between the nodes: a packet socket in the fabric, read by a thread.
//!
//! Invariant: capturing has begun when `start` returns; no packet of a call made after that is missed unless the
//! kernel says so (`lost`).

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use socket2::{Domain, Protocol, Socket, Type};

use crate::net::in_netns;

/// ETH_P_ALL, in network byte order.
const ALL_PROTOCOLS: i32 = 0x0003_u16.to_be() as i32;

/// A capture holds no more than this, in bytes of payload.
const MOST_KEPT: usize = 256 << 20;

/// One TCP segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Who sent it.
    pub source: SocketAddr,
    /// For whom.
    pub destination: SocketAddr,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Packet {
    /// Whether it begins with a TLS record.
    pub fn begins_tls_record(&self) -> bool {
        matches!(self.payload.as_slice(), [0x14..=0x17, 0x03, 0x00..=0x04, ..])
    }

    /// Whether it is a ServerHello that chose TLS 1.3 (RFC 8446 §4.2.1: the extension supported_versions names it).
    pub fn chooses_tls13(&self) -> bool {
        matches!(self.payload.as_slice(), [0x16, 0x03, _, _, _, 0x02, ..])
            && self.contains(&[0x00, 0x2b, 0, 2, 3, 4])
    }

    /// Whether these bytes are in it.
    pub fn contains(&self, bytes: &[u8]) -> bool {
        self.payload.windows(bytes.len()).any(|window| window == bytes)
    }

    /// Whether it goes to or comes from this port.
    pub fn has_port(&self, port: u16) -> bool {
        self.source.port() == port || self.destination.port() == port
    }
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    reader: JoinHandle<Vec<Packet>>,
}

impl Capture {
    /// Captures all TCP segments with payload that pass a namespace; each once per link it passes.
    pub fn start(netns: &Path) -> Result<Self> {
        let socket = in_netns(netns, || {
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ALL_PROTOCOLS)))?;
            socket.set_recv_buffer_size(8 << 20)?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            std::io::Result::Ok(socket)
        })?
        .context("cannot capture packets")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = stop.clone();
        let reader = std::thread::spawn(move || read(socket, &stopping));
        Ok(Self { stop, reader })
    }

    /// Ends it, after what is on its way has arrived.
    pub fn stop(self) -> Result<Vec<Packet>> {
        self.stop.store(true, Ordering::Relaxed);
        self.reader.join().map_err(|_| anyhow!("the capture panicked"))
    }
}

fn read(mut socket: Socket, stop: &AtomicBool) -> Vec<Packet> {
    let (mut packets, mut kept) = (Vec::new(), 0);
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match socket.read(&mut buffer) {
            Ok(length) => {
                if let Some(packet) = parse(&buffer[..length])
                    && kept < MOST_KEPT
                {
                    kept += packet.payload.len();
                    packets.push(packet);
                }
            }
            // Only when nothing was left to read does the wish to stop count.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if stop.load(Ordering::Relaxed) {
                    return packets;
                }
            }
            Err(_) => return packets,
        }
    }
}

/// An Ethernet frame with a TCP segment that carries something.
fn parse(frame: &[u8]) -> Option<Packet> {
    let packet = frame.get(14..)?;
    let (source, destination, segment) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
            let ip = |at: usize| {
                Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?)))
            };
            (*packet.get(9)? == 6).then_some(())?;
            (ip(12)?, ip(16)?, packet.get(header..length.min(packet.len()))?)
        }
        [0x86, 0xdd] => {
            let ip = |at: usize| {
                Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?)))
            };
            (*packet.get(6)? == 6).then_some(())?;
            let length = 40 + usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
            (ip(8)?, ip(24)?, packet.get(40..length.min(packet.len()))?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes([*segment.get(at)?, *segment.get(at + 1)?]));
    let payload = segment.get(usize::from(segment.get(12)? >> 4) * 4..)?;
    (!payload.is_empty()).then_some(())?;
    Some(Packet {
        source: SocketAddr::new(source, port(0)?),
        destination: SocketAddr::new(destination, port(2)?),
        payload: payload.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_read() {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00, 0x45, 0, 0, 43, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([
            0x1f, 0x90, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0, b'G', b'E', b'T', 0, 0,
        ]);
        let packet = parse(&frame).unwrap();
        assert_eq!(
            (packet.source, packet.destination),
            ("10.0.0.1:8080".parse().unwrap(), "10.0.0.2:80".parse().unwrap())
        );
        assert_eq!(packet.payload, b"GET");
        assert!(packet.contains(b"ET") && packet.has_port(80) && !packet.begins_tls_record());
        assert_eq!(parse(&frame[..40]), None);
    }
}
