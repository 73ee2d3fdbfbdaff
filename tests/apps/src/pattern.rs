//! A stream of bytes that both ends can compute, so that loss, repetition and reordering show.
//!
//! Invariant: the period is a prime, so no buffer size of any proxy divides it and a dropped or doubled buffer
//! cannot go unnoticed.

use std::sync::OnceLock;

use sha2::{Digest, Sha256};

const PERIOD: usize = 1_048_573;

/// One period of the stream, twice, so that any position gives a slice of up to one period.
pub struct Pattern(Vec<u8>);

impl Pattern {
    /// The one pattern there is, made at first use.
    pub fn get() -> &'static Self {
        static PATTERN: OnceLock<Pattern> = OnceLock::new();
        PATTERN.get_or_init(Self::make)
    }

    fn make() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut bytes: Vec<u8> = (0..PERIOD)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[0]
            })
            .collect();
        bytes.extend_from_within(..);
        Self(bytes)
    }

    /// The `length` bytes (at most 1 MiB less three) that begin at `position` of the stream.
    pub fn at(&self, position: u64, length: usize) -> &[u8] {
        let start = (position % PERIOD as u64) as usize;
        &self.0[start..start + length.min(PERIOD)]
    }
}

/// Counts and hashes what goes by.
#[derive(Default)]
pub struct Tally {
    /// Bytes so far.
    pub bytes: u64,
    hash: Sha256,
}

impl Tally {
    /// Takes the next piece.
    pub fn add(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.hash.update(piece);
    }

    /// `COUNT CHECKSUM`, as both ends print it.
    pub fn summary(self) -> String {
        let bytes = self.bytes;
        format!("{bytes} {}", self.checksum())
    }

    /// SHA-256 of everything, hexadecimal.
    pub fn checksum(self) -> String {
        self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_repeats_after_its_period_only() {
        let pattern = Pattern::get();
        assert_eq!(pattern.at(5, 100), pattern.at(5 + PERIOD as u64, 100));
        assert_ne!(pattern.at(5, 100), pattern.at(5 + 65_536, 100));
        assert_eq!(pattern.at(PERIOD as u64 - 1, 2)[1], pattern.at(0, 1)[0]);
    }
}
