//! As much netlink as the other files here need: one request, its answers, their attributes.
//!
//! Invariant: a socket belongs to the netns of the thread that opened it; open it inside `Netns::enter`.

use std::io::{self, Read};

use socket2::{Domain, Protocol, Socket, Type};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const HEADER: usize = 16;

/// Netlink families.
pub const ROUTE: i32 = 0;
/// Socket diagnosis.
pub const SOCK_DIAG: i32 = 4;
/// Netfilter.
pub const NETFILTER: i32 = 12;

/// An open netlink socket.
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// A socket of a family, in the netns of this thread.
    pub fn open(family: i32) -> io::Result<Netlink> {
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(family)))?;
        // The kernel answers at once; a lost answer must not hang an enrolment.
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
        Ok(Netlink { socket })
    }

    /// Asks for a list; gives each answer's body.
    pub fn dump(&self, kind: u16, body: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.send(kind, NLM_F_REQUEST | NLM_F_DUMP, body)?;
        self.answers(|_, body| each(body))
    }

    /// Asks for something to be done.
    pub fn order(&self, kind: u16, body: &[u8]) -> io::Result<()> {
        self.send(kind, NLM_F_REQUEST | NLM_F_ACK, body)?;
        self.answers(|_, _| {})
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(&flags.to_ne_bytes());
        message.extend_from_slice(&[0; 8]);
        message.extend_from_slice(body);
        self.socket.send(&message).map(drop)
    }

    /// Reads until the kernel says that this was all, or refuses.
    fn answers(&self, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = (&self.socket).read(&mut buffer)?;
            let mut rest = &buffer[..length];
            while let Some((kind, body, next)) = message(rest) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return refusal(body),
                    _ => each(kind, body),
                }
                rest = next;
            }
        }
    }
}

/// Error 0 is an acknowledgement.
fn refusal(body: &[u8]) -> io::Result<()> {
    match word(body, 0).map(|code| code as i32) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "short netlink error")),
    }
}

/// Splits the first message off.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = word(bytes, 0)? as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The attributes of a body.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) as usize;
        // The upper two bits say "nested" and "network order".
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The word at an offset, in host order.
pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A text without its final zero.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_message_ends_the_reading_and_does_not_panic() {
        assert!(message(&[9, 0, 0]).is_none());
        assert!(message(&[255, 0, 0, 0, 0, 0, 0, 0]).is_none());
        assert_eq!(attributes(&[200, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
    }

    #[test]
    fn attributes_are_padded_to_four() {
        let bytes = [5, 0, 3, 0, b'a', 0, 0, 0, 8, 0, 5, 0, 7, 0, 0, 0];
        let found: Vec<_> = attributes(&bytes).collect();
        assert_eq!(found, [(3, &b"a"[..]), (5, &[7, 0, 0, 0][..])]);
    }
}
