//! Bytes from a socket become lines. No I/O here: gateway, tests and fuzzers feed it.
//!
//! The caller reads into a buffer that many sockets share; only the unfinished tail of a line is
//! kept here. A socket with nothing half-sent holds no buffer at all.

use crate::answer::{Code, Refusal};

/// Step in which the buffer of a started line grows, in bytes. Smaller ones double.
pub const GROWTH_BYTES: usize = 16 * 1024;

/// Cuts a stream of bytes into lines, bounded while it waits, not only when a line is done.
#[derive(Debug)]
pub struct LineSplitter {
    /// The start of a line whose newline has not come yet.
    partial: Vec<u8>,
    /// `partial` was handed out as a whole line and is cleared at the next call.
    handed_out: bool,
    /// Longest line, in bytes, without its newline.
    bytes_max: usize,
}

impl LineSplitter {
    /// A splitter that refuses lines longer than `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { partial: Vec::new(), handed_out: false, bytes_max }
    }

    /// Takes the next whole line off `chunk`, trimmed of ASCII white space, or `None` when more
    /// bytes are needed; then all of `chunk` has been taken.
    ///
    /// # Errors
    ///
    /// [`Code::LineTooLong`] as soon as the limit is passed, newline or not, so that a silent flood
    /// cannot grow the buffer. Framing is lost: the caller closes the socket.
    pub fn next_line<'s, 'c: 's>(
        &'s mut self,
        chunk: &mut &'c [u8],
    ) -> Result<Option<&'s [u8]>, Refusal> {
        self.let_go();
        let Some(newline) = memchr::memchr(b'\n', chunk) else {
            self.check_length(chunk)?;
            self.keep(chunk);
            *chunk = &[];
            return Ok(None);
        };
        let (head, rest) = chunk.split_at(newline);
        *chunk = &rest[1..];
        self.check_length(head)?;
        if self.partial.is_empty() {
            return Ok(Some(head.trim_ascii()));
        }
        self.keep(head);
        self.handed_out = true;
        Ok(Some(self.partial.trim_ascii()))
    }

    /// Gives back the memory of a line that was handed out and is dealt with: the next may never come.
    pub fn let_go(&mut self) {
        if self.handed_out {
            self.handed_out = false;
            self.partial = Vec::new();
        }
    }

    /// Bytes of memory that are kept.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.partial.capacity()
    }

    /// Bytes of memory that may be kept once `more` bytes came.
    #[must_use]
    pub fn kept_after(&self, more: usize) -> usize {
        self.partial.capacity().max(capacity_for(self.partial.len() + more))
    }

    /// Bytes that may come without more than `bytes` of memory being kept then.
    #[must_use]
    pub fn room_within(&self, bytes: usize) -> usize {
        let capacity = self.partial.capacity().max(capacity_within(bytes));
        capacity.saturating_sub(self.partial.len())
    }

    /// Bytes of the line that has been started and not ended.
    #[must_use]
    pub fn started_bytes(&self) -> usize {
        if self.handed_out { 0 } else { self.partial.len() }
    }

    /// Keeps bytes, in steps that the caller can foretell.
    fn keep(&mut self, bytes: &[u8]) {
        let capacity = capacity_for(self.partial.len() + bytes.len());
        if self.partial.capacity() < capacity {
            self.partial.reserve_exact(capacity - self.partial.len());
        }
        self.partial.extend_from_slice(bytes);
    }

    /// Checks the line so far, of which `tail` is the end that is not in `partial` yet.
    fn check_length(&self, tail: &[u8]) -> Result<(), Refusal> {
        let bytes = self.partial.len() + tail.len();
        let last = tail.last().or(self.partial.last());
        // The carriage return of a line that ends in CR LF is not the line's.
        let allowed = self.bytes_max + usize::from(last == Some(&b'\r'));
        if bytes <= allowed {
            return Ok(());
        }
        Err(Refusal::new(Code::LineTooLong, format!("a line has at most {} bytes", self.bytes_max)))
    }
}

/// The largest buffer of at most `bytes`.
fn capacity_within(bytes: usize) -> usize {
    match bytes.checked_ilog2() {
        Some(log) if bytes < GROWTH_BYTES => 1 << log,
        _ => bytes / GROWTH_BYTES * GROWTH_BYTES,
    }
}

/// Memory that is kept of a line that was started with `bytes`.
#[must_use]
pub fn capacity_for(bytes: usize) -> usize {
    match bytes {
        0 => 0, // A socket with nothing half-sent holds no buffer at all.
        1..=GROWTH_BYTES => bytes.next_power_of_two(),
        _ => bytes.next_multiple_of(GROWTH_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 8;

    fn lines(chunks: &[&[u8]]) -> Result<Vec<Vec<u8>>, Code> {
        let mut splitter = LineSplitter::new(MAX);
        let mut lines = Vec::new();
        for chunk in chunks {
            let mut chunk = *chunk;
            while let Some(line) = splitter.next_line(&mut chunk).map_err(|refusal| refusal.code)? {
                lines.push(line.to_vec());
            }
        }
        Ok(lines)
    }

    #[test]
    fn lines_come_out_trimmed() {
        assert_eq!(
            lines(&[b" a \r\nb\n", b"\n", b"c"]),
            Ok(vec![b"a".into(), b"b".into(), vec![]])
        );
    }

    #[test]
    fn a_line_of_the_limit_passes_and_one_byte_more_does_not() {
        assert_eq!(lines(&[b"12345678\n"]), Ok(vec![b"12345678".to_vec()]));
        assert_eq!(lines(&[b"1234", b"5678\r", b"\n"]), Ok(vec![b"12345678".to_vec()]));
        assert_eq!(lines(&[b"123456789\n"]), Err(Code::LineTooLong));
    }

    #[test]
    fn a_flood_without_newline_is_refused_before_the_newline_comes() {
        assert_eq!(lines(&[b"12345678", b"9"]), Err(Code::LineTooLong));
    }

    #[test]
    fn nothing_is_held_once_a_split_line_was_taken() {
        let mut splitter = LineSplitter::new(MAX);
        assert_eq!(splitter.next_line(&mut &b"ab"[..]), Ok(None));
        assert_eq!(splitter.started_bytes(), 2);
        let mut chunk = &b"c\n"[..];
        assert_eq!(splitter.next_line(&mut chunk), Ok(Some(&b"abc"[..])));
        assert_eq!(splitter.started_bytes(), 0);
        assert_eq!(splitter.next_line(&mut chunk), Ok(None));
        assert_eq!(splitter.partial.capacity(), 0);
    }

    #[test]
    fn a_line_that_was_dealt_with_is_let_go_without_waiting_for_the_next() {
        let mut splitter = LineSplitter::new(MAX);
        assert_eq!(splitter.next_line(&mut &b"ab"[..]), Ok(None));
        splitter.let_go();
        assert_eq!(splitter.started_bytes(), 2, "it is not whole yet");
        assert_eq!(splitter.next_line(&mut &b"c\n"[..]), Ok(Some(&b"abc"[..])));
        splitter.let_go();
        assert_eq!(splitter.kept_bytes(), 0);
    }

    #[test]
    fn the_memory_of_a_started_line_is_as_foretold_and_not_a_byte_more() {
        let mut splitter = LineSplitter::new(40 * GROWTH_BYTES);
        for bytes in [1, 2, 100, GROWTH_BYTES - 200, 97, 1, GROWTH_BYTES, 5 * GROWTH_BYTES - 7] {
            let foretold = splitter.kept_after(bytes);
            assert!(bytes <= splitter.room_within(foretold.max(GROWTH_BYTES)));
            assert_eq!(splitter.next_line(&mut &vec![b'x'; bytes][..]), Ok(None));
            assert_eq!(splitter.kept_bytes(), foretold, "{bytes}");
        }
        assert_eq!(LineSplitter::new(MAX).room_within(0), 0);
        assert_eq!(LineSplitter::new(MAX).room_within(1023), 512);
        let room = splitter.room_within(8 * GROWTH_BYTES + 1);
        assert!(splitter.kept_after(room) <= 8 * GROWTH_BYTES + 1);
        assert!(8 * GROWTH_BYTES + 1 < splitter.kept_after(room + 1));
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_bytes_were_cut(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..64),
            cuts in proptest::collection::vec(0..64_usize, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(lines(&pieces).is_err(), lines(&[&bytes]).is_err());
            if let Ok(whole) = lines(&[&bytes]) {
                prop_assert_eq!(lines(&pieces), Ok(whole));
            }
        }
    }
}
