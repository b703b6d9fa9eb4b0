//! Ids of lines and records, and the id that lets the bus recognise a message sent twice.
//!
//! A record's id does not know socket or session: a line sent again after a reconnect, or after a
//! restart of the game, gets the same ids, and the stores keep each once.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use crate::frame::Mid;
use crate::key::ProjectId;

/// Bytes of a line id as text: a letter and 32 hex digits.
pub const LINE_ID_BYTES: usize = 33;

/// Id of a line, as text. `m…` was computed from a message id, `r…` is fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LineId([u8; LINE_ID_BYTES]);

impl LineId {
    /// The id of a line that carries a message id: a hash of project, device (of a hello, else
    /// empty), message id and the payload's bytes.
    #[must_use]
    pub fn of_message(project: ProjectId, device: &str, mid: Mid<'_>, json: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(project.as_str());
        // Lengths keep apart what concatenation would join.
        hash.update((device.len() as u64).to_le_bytes());
        hash.update(device);
        hash.update((mid.as_str().len() as u64).to_le_bytes());
        hash.update(mid.as_str());
        hash.update(json);
        let digest = hash.finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Self::from_bytes(b'm', half)
    }

    /// A fresh id for a line without a message id: the socket's random number and the line's
    /// sequence on it.
    #[must_use]
    pub fn fresh(socket_random: u64, seq: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&socket_random.to_be_bytes());
        bytes[8..].copy_from_slice(&seq.to_be_bytes());
        Self::from_bytes(b'r', bytes)
    }

    fn from_bytes(letter: u8, bytes: [u8; 16]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; LINE_ID_BYTES];
        text[0] = letter;
        for (pair, byte) in text[1..].chunks_exact_mut(2).zip(bytes) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Self(text)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("letters and digits")
    }
}

/// Writes the id of the record at `index` of a line: the line's id and three hex digits.
pub fn write_record_id(line_id: &str, index: u32, out: &mut String) {
    write!(out, "{line_id}-{index:03x}").expect("a String takes what is written");
}

/// Computes the id of a bus message from the ids of its lines.
///
/// Made by us, never by a game: the bus keeps one table for all projects, and an id chosen by one
/// could swallow the message of another.
#[derive(Default)]
pub struct MessageId(Sha256);

impl MessageId {
    /// Adds the id of the next line.
    pub fn add(&mut self, line_id: &str) {
        self.0.update(line_id);
    }

    /// The id as text: 32 hex digits.
    #[must_use]
    pub fn finish(self) -> String {
        let mut text = String::with_capacity(32);
        for byte in &self.0.finalize()[..16] {
            write!(text, "{byte:02x}").expect("a String takes what is written");
        }
        text
    }
}

/// FNV-1a, a short hash that stays the same in every release, as the standard library's need not. Two
/// texts may share one: only for what a collision costs nothing but work.
#[must_use]
pub fn short_hash(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(project: &str, device: &str, mid: &str, json: &str) -> LineId {
        let mid = Mid::parse(mid.as_bytes()).unwrap();
        LineId::of_message(project.parse().unwrap(), device, mid, json.as_bytes())
    }

    #[test]
    fn the_same_line_sent_again_has_the_same_id() {
        assert_eq!(id("0123456789ab", "", "1", "[]"), id("0123456789ab", "", "1", "[]"));
    }

    #[test]
    fn a_line_that_differs_in_anything_has_another_id() {
        let first = id("0123456789ab", "", "1", "[]");
        for other in [
            id("0123456789ac", "", "1", "[]"),
            id("0123456789ab", "a", "1", "[]"),
            id("0123456789ab", "", "2", "[]"),
            id("0123456789ab", "", "1", "[ ]"),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn the_short_hash_is_that_of_every_release() {
        // The published values of FNV-1a, 64 bit.
        assert_eq!(short_hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(short_hash(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(short_hash(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn fresh_ids_of_a_socket_differ() {
        assert_ne!(LineId::fresh(1, 1), LineId::fresh(1, 2));
        assert_eq!(LineId::fresh(1, 255).as_str(), "r000000000000000100000000000000ff");
        let mut text = String::new();
        write_record_id(LineId::fresh(1, 1).as_str(), 499, &mut text);
        assert!(text.ends_with("-1f3"));
    }
}
