//! Hears the end of a process that is not a child.
//!
//! Invariant: what is heard is the end of the very process that was named, not of whoever got its pid.

#![allow(unsafe_code, reason = "pidfd_open has no safe wrapper")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Process;

/// The end of one process, to be waited for.
#[derive(Debug)]
pub struct Exit {
    file: AsyncFd<OwnedFd>,
}

impl Exit {
    /// The end of this process; an error if it has ended. To be called inside a tokio runtime.
    pub fn of(process: Process) -> io::Result<Exit> {
        let pid = libc::pid_t::try_from(process.pid).map_err(io::Error::other)?;
        // SAFETY: the call takes two integers, and gives a new file descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        if !process.is_alive() {
            return Err(io::ErrorKind::NotFound.into());
        }
        // SAFETY: `file` owns its descriptor, which stays the same and open for as long as the result lives.
        let file = unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }?;
        Ok(Exit { file })
    }

    /// Returns once it has ended. May be called again if it was given up before.
    pub async fn ended(&self) {
        // The only error is a runtime that ends; then nobody needs to know.
        let _ = self.file.readable().await;
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_end_of_a_process_is_heard_once_it_comes_and_not_before() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        let exit = Exit::of(process).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), exit.ended()).await.is_err());
        child.kill().unwrap();
        tokio::time::timeout(Duration::from_secs(5), exit.ended()).await.unwrap();
        child.wait().unwrap();
        assert!(Exit::of(process).is_err());
    }
}
