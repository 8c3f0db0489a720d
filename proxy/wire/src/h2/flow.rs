//! Windows (RFC 9113 §5.2 and §6.9).

use super::error::H2Error;

/// Largest window.
pub const WINDOW_MAX: u32 = 0x7fff_ffff;

/// What we may send. SETTINGS can make it negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendWindow(i64);

impl SendWindow {
    /// A window of `bytes`.
    #[must_use]
    pub const fn new(bytes: u32) -> Self {
        Self(bytes as i64)
    }

    /// Bytes that may be sent now.
    #[must_use]
    pub const fn available(self) -> usize {
        if self.0 > 0 { self.0 as usize } else { 0 }
    }

    /// Bytes were sent; never more than [`available`](Self::available).
    pub const fn take(&mut self, bytes: usize) {
        self.0 -= bytes as i64;
    }

    /// Bytes were granted, or (by SETTINGS) taken away.
    ///
    /// *Errors*: the window is larger than [`WINDOW_MAX`].
    pub const fn change(&mut self, by: i64) -> Result<(), H2Error> {
        let grown = self.0 + by;
        if grown > WINDOW_MAX as i64 {
            return Err(H2Error::WindowOverflow);
        }
        self.0 = grown;
        Ok(())
    }
}

/// What the peer may send, and what it is to be granted for bytes that were used.
///
/// Credit is granted when it has come to half the window, so that a WINDOW_UPDATE is worth its frame and the peer does not
/// run dry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveWindow {
    left: i64,
    /// Used and not granted again.
    credit: u32,
    target: u32,
}

impl ReceiveWindow {
    /// A window that is `left` now and is kept at `target`.
    #[must_use]
    pub const fn new(left: u32, target: u32) -> Self {
        Self { left: left as i64, credit: 0, target }
    }

    /// Bytes arrived.
    ///
    /// *Errors*: more than the window allowed.
    pub const fn arrived(&mut self, bytes: usize) -> Result<(), H2Error> {
        let left = self.left - bytes as i64;
        if left < 0 {
            return Err(H2Error::WindowExceeded);
        }
        self.left = left;
        Ok(())
    }

    /// Bytes were used; returns what is to be granted now, which may be nothing.
    pub const fn used(&mut self, bytes: u32) -> Option<u32> {
        self.credit = self.credit.saturating_add(bytes);
        if self.credit == 0 || self.credit < self.target / 2 {
            return None;
        }
        let grant = self.credit;
        self.credit = 0;
        self.left += grant as i64;
        Some(grant)
    }

    /// What a connection grants at its start to come from the window it begins with to its target.
    pub const fn open(&mut self) -> Option<u32> {
        let more = self.target as i64 - self.left;
        if more <= 0 {
            return None;
        }
        self.left += more;
        Some(more as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn send_window_at_its_limit_and_one_past() {
        let mut window = SendWindow::new(10);
        assert_eq!(window.change(i64::from(WINDOW_MAX) - 10), Ok(()));
        assert_eq!(window.change(1), Err(H2Error::WindowOverflow));
        window.take(5);
        assert_eq!(window.change(5), Ok(()));
    }

    #[test]
    fn settings_can_make_a_window_negative() {
        let mut window = SendWindow::new(10);
        window.take(8);
        window.change(-10).unwrap();
        assert_eq!(window.available(), 0);
        window.change(9).unwrap();
        assert_eq!(window.available(), 1);
    }

    #[test]
    fn receive_window_grants_at_half_of_its_target() {
        let mut window = ReceiveWindow::new(100, 100);
        assert_eq!(window.arrived(101), Err(H2Error::WindowExceeded));
        window.arrived(100).unwrap();
        assert_eq!(window.arrived(1), Err(H2Error::WindowExceeded));
        assert_eq!((window.used(49), window.used(1), window.used(50)), (None, Some(50), Some(50)));
        assert_eq!(window.arrived(100), Ok(()));
        assert_eq!(window.used(0), None);
    }

    #[test]
    fn connection_window_opens_to_its_target_once() {
        let mut window = ReceiveWindow::new(65_535, 100_000);
        assert_eq!((window.open(), window.open()), (Some(34_465), None));
        assert_eq!(ReceiveWindow::new(65_535, 1000).open(), None);
    }
}
