//! Bytes that wait to be written to one socket: answers and edits, in order, bounded. Only the
//! socket's session writes them; everybody else appends here.

/// An outbox holds no buffer while it is empty, and frees at most this many bytes later than that.
const COMPACT_BYTES: usize = 64 * 1024;

/// What waits for one socket.
#[derive(Debug)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    /// How many of `bytes` are written.
    written: usize,
    bytes_max: usize,
}

/// The game does not read: what was to be appended was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overflow;

impl Outbox {
    /// An outbox that refuses to hold more than `bytes_max`.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), written: 0, bytes_max }
    }

    /// Appends what `write` writes, wholly or not at all.
    pub(crate) fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Overflow> {
        let end = self.bytes.len();
        write(&mut self.bytes);
        if self.waiting().len() <= self.bytes_max {
            return Ok(());
        }
        self.bytes.truncate(end);
        Err(Overflow)
    }

    /// Appends the last words before the socket closes, past any bound.
    pub(crate) fn append_last(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
    }

    /// What is to be written next.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Whether all is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// `count` more bytes are written.
    pub(crate) fn advance(&mut self, count: usize) {
        self.written += count;
        if self.is_empty() {
            // Gives the memory back: the next answer may never come.
            *self = Self::new(self.bytes_max);
        } else if COMPACT_BYTES <= self.written {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outbox_holds_its_limit_and_not_a_byte_more() {
        let mut out = Outbox::new(4);
        assert_eq!(out.append(|out| out.extend_from_slice(b"abc")), Ok(()));
        assert_eq!(out.append(|out| out.extend_from_slice(b"de")), Err(Overflow));
        assert_eq!(out.append(|out| out.extend_from_slice(b"d")), Ok(()));
        out.advance(2);
        assert_eq!(out.append(|out| out.extend_from_slice(b"ef")), Ok(()));
        assert_eq!(out.waiting(), b"cdef");
    }

    #[test]
    fn an_empty_outbox_holds_no_memory() {
        let mut out = Outbox::new(4);
        out.append(|out| out.extend_from_slice(b"abc")).unwrap();
        out.advance(3);
        assert!(out.is_empty());
        assert_eq!(out.bytes.capacity(), 0);
    }

    #[test]
    fn written_bytes_are_given_back_while_more_wait() {
        let mut out = Outbox::new(COMPACT_BYTES * 2);
        out.append(|out| out.resize(COMPACT_BYTES + 3, b'x')).unwrap();
        out.advance(COMPACT_BYTES);
        assert_eq!((out.written, out.waiting()), (0, &b"xxx"[..]));
    }
}
