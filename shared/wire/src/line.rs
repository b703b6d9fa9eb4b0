//! Bytes from a socket become lines. No I/O here: gateway, tests and fuzzers feed it.
//!
//! The caller reads into a buffer that many sockets share; only the unfinished tail of a line is
//! kept here. A socket with nothing half-sent holds no buffer at all.

use crate::answer::{Code, Refusal};

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
        if self.handed_out {
            self.handed_out = false;
            self.partial = Vec::new(); // Gives the memory back: the next line may never come.
        }
        let Some(newline) = memchr::memchr(b'\n', chunk) else {
            self.check_length(chunk)?;
            self.partial.extend_from_slice(chunk);
            *chunk = &[];
            return Ok(None);
        };
        let (head, rest) = chunk.split_at(newline);
        *chunk = &rest[1..];
        self.check_length(head)?;
        if self.partial.is_empty() {
            return Ok(Some(head.trim_ascii()));
        }
        self.partial.extend_from_slice(head);
        self.handed_out = true;
        Ok(Some(self.partial.trim_ascii()))
    }

    /// Bytes of the line that has been started and not ended.
    #[must_use]
    pub fn started_bytes(&self) -> usize {
        if self.handed_out { 0 } else { self.partial.len() }
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
