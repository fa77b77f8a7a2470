//! Replies that wait for the socket.

use crate::protocol::Reply;

/// Encoded replies, oldest first. An idle session's empty outbox holds no memory (see [`rest`](Self::rest)).
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// How many of `bytes` have been written.
    gone: usize,
}

impl Outbox {
    /// The bytes that have not been written yet.
    pub(super) fn pending(&self) -> &[u8] {
        &self.bytes[self.gone..]
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.gone
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn push(&mut self, reply: &Reply<'_>) {
        reply.encode(&mut self.bytes);
    }

    /// Puts `bytes` in front of everything that waits.
    pub(super) fn push_front(&mut self, mut bytes: Vec<u8>) {
        bytes.extend_from_slice(self.pending());
        (self.bytes, self.gone) = (bytes, 0);
    }

    /// Notes that `wrote` bytes were written, of which those of the outbox came first. Returns how many were not
    /// the outbox's.
    pub(super) fn sent(&mut self, wrote: usize) -> usize {
        let own = wrote.min(self.len());
        self.gone += own;
        if self.is_empty() {
            // Stays allocated until `rest`: the next reply probably comes soon.
            self.bytes.clear();
            self.gone = 0;
        } else if self.gone > self.bytes.len() / 2 {
            self.bytes.drain(..self.gone);
            self.gone = 0;
        }
        wrote - own
    }

    /// Frees an empty buffer when the connection goes idle.
    pub(super) fn rest(&mut self) {
        if self.is_empty() {
            self.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_counted_between_owner_and_others() {
        let mut out = Outbox::default();
        out.push(&Reply::Done { request: 1 });
        let all = out.pending().to_vec();
        assert_eq!(out.sent(5), 0);
        assert_eq!(out.pending(), &all[5..]);
        out.push_front(vec![9, 9]);
        assert_eq!(out.pending(), [&[9, 9], &all[5..]].concat());
        assert_eq!(out.sent(2 + all.len() - 5 + 7), 7);
        assert!(out.is_empty());
        out.rest();
        assert_eq!(out.bytes.capacity(), 0);
    }
}
