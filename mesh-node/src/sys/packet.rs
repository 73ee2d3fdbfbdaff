//! Unix sockets that keep messages apart (SOCK_SEQPACKET) and carry a file descriptor beside a message.
//!
//! Invariants: a received descriptor is owned (closed on drop) and close-on-exec; a message larger than the reader's limit is an error, never
//! a part of it.

#![allow(unsafe_code, reason = "nix gives received descriptors as numbers")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use socket2::{Domain, SockAddr, Socket, Type};

/// A message, and the descriptor that came with it.
#[derive(Debug)]
pub struct Packet {
    /// Its bytes; none: the peer has hung up.
    pub bytes: Vec<u8>,
    /// The first descriptor; further ones are closed.
    pub fd: Option<OwnedFd>,
}

/// Listens at `path`, which must not exist; `backlog` connections may wait.
pub fn listen_packets(path: &Path, backlog: i32) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(backlog)?;
    Ok(OwnedFd::from(socket).into())
}

/// Connects to `path`; `wait` bounds the connect and each later send and receive.
pub fn connect_packets(path: &Path, wait: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.set_write_timeout(Some(wait))?;
    socket.set_read_timeout(Some(wait))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(OwnedFd::from(socket).into())
}

/// Sends one message, with a descriptor beside it if given.
pub fn send_packet(socket: impl AsFd, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let fds: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    let to = socket.as_fd().as_raw_fd();
    sendmsg::<()>(to, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives one message of at most `limit` bytes.
pub fn receive_packet(socket: impl AsFd, limit: usize) -> io::Result<Packet> {
    let mut bytes = vec![0; limit];
    let mut control = nix::cmsg_space!([RawFd; 4]);
    let (length, flags, fd) = {
        let from = socket.as_fd().as_raw_fd();
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg::<()>(from, &mut buffers, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = message {
                // SAFETY: the kernel has just made these descriptors for us, and nobody else knows their numbers.
                fds.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
            }
        }
        (received.bytes, received.flags, fds.into_iter().next())
    };
    if flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of more than {limit} bytes"),
        ));
    }
    bytes.truncate(length);
    Ok(Packet { bytes, fd })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    fn pair() -> (Socket, Socket) {
        Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap()
    }

    #[test]
    fn messages_stay_apart_and_a_descriptor_arrives_open() {
        let (one, other) = pair();
        let file = File::open("/proc/self/comm").unwrap();
        send_packet(&one, b"first", Some(file.as_fd())).unwrap();
        send_packet(&one, b"second", None).unwrap();
        drop(file);
        let first = receive_packet(&other, 64).unwrap();
        assert_eq!(first.bytes, b"first");
        let mut text = String::new();
        File::from(first.fd.unwrap()).read_to_string(&mut text).unwrap();
        assert!(!text.is_empty());
        let second = receive_packet(&other, 64).unwrap();
        assert!(second.bytes == b"second" && second.fd.is_none());
    }

    #[test]
    fn a_message_over_the_limit_is_an_error_and_a_hang_up_is_empty() {
        let (one, other) = pair();
        send_packet(&one, &[7; 65], None).unwrap();
        assert_eq!(receive_packet(&other, 64).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(one);
        assert!(receive_packet(&other, 64).unwrap().bytes.is_empty());
    }
}
