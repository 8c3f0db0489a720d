//! Text that is written for every request, without the formatter and without an allocation.

/// Decimal digits.
#[derive(Debug, Default)]
pub(crate) struct Digits([u8; 20]);

impl Digits {
    /// The digits of `number`.
    pub(crate) fn write(&mut self, mut number: u64) -> &[u8] {
        let mut used = 0;
        for digit in self.0.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
            used += 1;
            if number == 0 {
                break;
            }
        }
        self.0.get(20 - used..).unwrap_or_default()
    }
}
