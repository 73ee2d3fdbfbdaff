//! The version of a resource: its content, hashed. Equal content has equal versions on every controller and after every restart, so
//! a stream that begins again sends only what differs.
//!
//! Invariant: the encoding that is hashed is deterministic (fields in order, maps ordered). A node keeps the version that came with
//! a resource and never computes it: an older node does not know all fields.

use std::fmt;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use crate::v1;

const LENGTH: usize = 16;

/// The first 16 bytes of the SHA-256 of the encoded resource.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version([u8; LENGTH]);

/// A version that is not 16 bytes long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a version has {LENGTH} bytes, not {length}")]
pub struct BadVersion {
    /// What it has.
    pub length: usize,
}

impl Version {
    /// Hashes a resource.
    pub fn of(resource: &v1::Resource) -> Self {
        let digest = Sha256::digest(resource.encode_to_vec());
        let mut version = [0; LENGTH];
        version.copy_from_slice(&digest[..LENGTH]);
        Self(version)
    }

    /// As it travels.
    pub fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

impl TryFrom<&[u8]> for Version {
    type Error = BadVersion;

    fn try_from(bytes: &[u8]) -> Result<Self, BadVersion> {
        bytes.try_into().map(Self).map_err(|_| BadVersion { length: bytes.len() })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
