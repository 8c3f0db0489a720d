//! Numbers with a meaning.

use serde::{Deserialize, Serialize};

/// A share between 0 and 1, in millionths: Envoy's `FractionalPercent` in its finest denominator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fraction(u32);

impl Fraction {
    /// None of it.
    pub const ZERO: Self = Self(0);
    /// All of it.
    pub const ONE: Self = Self(1_000_000);

    /// `millionths` of the whole; above one million it is the whole, as in Envoy.
    pub const fn from_millionths(millionths: u32) -> Self {
        if millionths > 1_000_000 { Self::ONE } else { Self(millionths) }
    }

    /// Whole percents; above 100 it is the whole.
    pub const fn from_percent(percent: u32) -> Self {
        if percent >= 100 { Self::ONE } else { Self(percent * 10_000) }
    }

    /// In millionths of the whole, 0..=1,000,000.
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// Whether a uniformly random `draw` falls inside the share. The bias of the modulo is below 1/4000.
    pub const fn contains(self, draw: u32) -> bool {
        draw % 1_000_000 < self.0
    }
}
