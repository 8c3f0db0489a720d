//! Buffers of one worker, lent and given back.
//!
//! A connection holds a buffer only while bytes are in it: an idle connection holds none. Buffers are zeroed when they
//! are made and never again.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Size of an ordinary buffer, bytes.
pub const BUFFER_BYTES: usize = 16 << 10;
/// Size of a buffer for bodies and TLS records, bytes.
pub const BIG_BUFFER_BYTES: usize = 64 << 10;
/// Unused buffers kept per worker and size: 4 MiB of ordinary and 4 MiB of big ones. Those beyond are freed.
const KEEP: usize = 256;
const KEEP_BIG: usize = 64;

/// The unused buffers of one worker.
#[derive(Clone, Default)]
pub struct BufferPool(Rc<Free>);

#[derive(Default)]
struct Free {
    small: RefCell<Vec<Box<[u8]>>>,
    big: RefCell<Vec<Box<[u8]>>>,
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("free", &self.0.small.borrow().len())
            .field("free_big", &self.0.big.borrow().len())
            .finish()
    }
}

impl BufferPool {
    /// An empty buffer of [`BUFFER_BYTES`].
    pub fn take(&self) -> Buf {
        let bytes = self.0.small.borrow_mut().pop();
        self.wrap(bytes.unwrap_or_else(|| vec![0; BUFFER_BYTES].into()))
    }

    /// An empty buffer of [`BIG_BUFFER_BYTES`].
    pub fn take_big(&self) -> Buf {
        let bytes = self.0.big.borrow_mut().pop();
        self.wrap(bytes.unwrap_or_else(|| vec![0; BIG_BUFFER_BYTES].into()))
    }

    /// An empty buffer of `bytes`, for what is larger than the others; it is freed, not kept.
    pub fn take_sized(&self, bytes: usize) -> Buf {
        self.wrap(vec![0; bytes].into())
    }

    /// Unused buffers at hand: ordinary ones, big ones.
    pub fn free(&self) -> (usize, usize) {
        (self.0.small.borrow().len(), self.0.big.borrow().len())
    }

    fn wrap(&self, bytes: Box<[u8]>) -> Buf {
        Buf { pool: self.0.clone(), bytes, start: 0, end: 0 }
    }
}

/// Bytes read and not yet used, in a buffer that goes back to its pool when dropped.
pub struct Buf {
    pool: Rc<Free>,
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buf").field("len", &self.len()).field("capacity", &self.bytes.len()).finish()
    }
}

impl Buf {
    /// What is in it.
    pub fn data(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// What is in it, to be changed in place.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether no byte more fits, even after moving its content to the front.
    pub fn is_full(&self) -> bool {
        self.len() == self.bytes.len()
    }

    /// Size of the buffer.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Drops `n` bytes from the front (all of them when there are fewer).
    pub fn consume(&mut self, n: usize) {
        self.start = self.start.saturating_add(n).min(self.end);
        if self.start == self.end {
            self.clear();
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Room behind the content. Moves the content to the front first when less than a quarter of the buffer is left;
    /// empty only when the buffer is full.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 && self.bytes.len() - self.end < self.bytes.len() / 4 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    /// Says that the first `n` bytes of [`Buf::space`] have been written.
    pub fn filled(&mut self, n: usize) {
        self.end = self.end.saturating_add(n).min(self.bytes.len());
    }

    /// Appends as much as fits; returns how much that was.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let space = self.space();
        let n = space.len().min(bytes.len());
        if let (Some(to), Some(from)) = (space.get_mut(..n), bytes.get(..n)) {
            to.copy_from_slice(from);
        }
        self.filled(n);
        n
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let (list, keep) = match bytes.len() {
            BUFFER_BYTES => (&self.pool.small, KEEP),
            BIG_BUFFER_BYTES => (&self.pool.big, KEEP_BIG),
            _ => return,
        };
        let mut list = list.borrow_mut();
        if list.len() < keep {
            list.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_buffer_is_lent_again() {
        let pool = BufferPool::default();
        let buf = pool.take();
        drop(buf);
        assert_eq!(pool.free(), (1, 0));
        let again = pool.take();
        assert!(again.is_empty());
        assert_eq!(pool.free(), (0, 0));
    }

    #[test]
    fn pool_keeps_its_limit_and_frees_one_past() {
        let pool = BufferPool::default();
        let all: Vec<_> = (0..KEEP + 1).map(|_| pool.take()).collect();
        let big: Vec<_> = (0..KEEP_BIG + 1).map(|_| pool.take_big()).collect();
        drop((all, big));
        assert_eq!(pool.free(), (KEEP, KEEP_BIG));
    }

    #[test]
    fn content_moves_to_the_front_when_room_runs_out() {
        let mut buf = BufferPool::default().take();
        assert_eq!(buf.append(&[1; BUFFER_BYTES + 1]), BUFFER_BYTES);
        assert!(buf.is_full() && buf.space().is_empty());
        buf.consume(BUFFER_BYTES - 3);
        assert_eq!(buf.space().len(), BUFFER_BYTES - 3);
        assert_eq!(buf.data(), &[1, 1, 1]);
        buf.consume(100);
        assert!(buf.is_empty());
        assert_eq!(buf.space().len(), BUFFER_BYTES);
    }
}
