//! Socket addresses by their role, so that the client's cannot be dialled and the dialled cannot be logged as the client's.
//!
//! Invariant: an address in here is canonical, never an IPv4-mapped IPv6 one.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(SocketAddr);

        impl $name {
            /// Wraps the canonical form of the address.
            pub fn new(addr: SocketAddr) -> Self {
                Self(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
            }

            /// The plain address.
            pub fn get(self) -> SocketAddr {
                self.0
            }

            /// Its IP address.
            pub fn ip(self) -> IpAddr {
                self.0.ip()
            }

            /// Its port.
            pub fn port(self) -> u16 {
                self.0.port()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

address!(
    /// Where the application wanted to go, before capture rewrote it.
    OrigDst
);
address!(
    /// Who called: the real address of the calling application.
    ClientAddr
);
address!(
    /// Where the proxy dials: a pod's IP and the target port.
    UpstreamAddr
);
