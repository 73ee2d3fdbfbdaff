//! The link between the nodes, as somebody who taps it sees it.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};

use crate::{Packet, World};

/// What a customer would rather keep to himself; applications pass cookies on.
pub const SECRET: (&str, &str) = ("cookie", "card=4111-1111-1111-1111");

/// Where HBONE travels.
const HBONE: u16 = 15008;

/// What is only ever on a wire that anyone can read.
const READABLE: [&[u8]; 4] = [b"HTTP/1.1", b"GET /", b"4111-1111", b"Shakespeare"];

/// What passed between pods of different nodes while `work` ran.
pub fn tap<T>(world: &World, work: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Packet>)> {
    let capture = world.capture()?;
    let done = work()?;
    let mut packets = capture.stop()?;
    // A forwarded segment passes both links of the fabric.
    let mut seen = HashSet::new();
    packets.retain(|packet| {
        is_pod(packet.source)
            && is_pod(packet.destination)
            && seen.insert((packet.source, packet.destination, packet.payload.clone()))
    });
    Ok((done, packets))
}

/// The first request that can be read, with who sent it to whom.
pub fn readable_request(packets: &[Packet]) -> Result<String> {
    let packet = packets
        .iter()
        .find(|packet| packet.payload.starts_with(b"GET ") && packet.contains(SECRET.1.as_bytes()))
        .context("no readable request on the link, although nothing is in the mesh")?;
    let text = String::from_utf8_lossy(&packet.payload);
    let line = text.lines().next().unwrap_or_default();
    Ok(format!("{} > {}  \"{line}\" … \"{}: {}\"", packet.source, packet.destination, SECRET.0, SECRET.1))
}

/// Fails unless some connection chose TLS 1.3.
pub fn handshakes(packets: &[Packet]) -> Result<usize> {
    let hellos = packets.iter().filter(|packet| packet.chooses_tls13()).count();
    ensure!(hellos > 0, "no ServerHello with TLS 1.3 among {} segments", packets.len());
    Ok(hellos)
}

/// Fails unless all of it is HBONE and nothing of it can be read; shows the beginning of a record.
pub fn sealed(packets: &[Packet]) -> Result<String> {
    let open = packets
        .iter()
        .find(|packet| !packet.has_port(HBONE) || READABLE.iter().any(|bytes| packet.contains(bytes)));
    if let Some(packet) = open {
        let shown: String = String::from_utf8_lossy(&packet.payload).chars().take(80).collect();
        anyhow::bail!("readable on the link, {} > {}: {shown:?}", packet.source, packet.destination);
    }
    let first = packets.iter().find(|packet| packet.begins_tls_record());
    let first = first.with_context(|| format!("no TLS record among {} segments", packets.len()))?;
    let head: Vec<String> = first.payload.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{} > {}  {} …", first.source, first.destination, head.join(" ")))
}

fn is_pod(address: SocketAddr) -> bool {
    match address.ip() {
        IpAddr::V4(ip) => ip.octets()[..2] == [10, 244],
        IpAddr::V6(ip) => ip.segments()[..3] == [0xfd00, 0x10, 0x244],
    }
}
