//! Random bytes nobody can guess, from the crypto provider.

use std::fmt::Write as _;

/// The provider had no randomness to give.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness;

/// `N` bytes fit for secrets.
///
/// *Errors*: [`NoRandomness`].
pub fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut buffer = [0; N];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut buffer)
        .map_err(|_| NoRandomness)?;
    Ok(buffer)
}

/// `N` random bytes as lower-case hexadecimal.
///
/// *Errors*: [`NoRandomness`].
pub fn hex<const N: usize>() -> Result<String, NoRandomness> {
    Ok(to_hex(&bytes::<N>()?))
}

/// Lower-case hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ_and_have_the_asked_length() {
        let (one, two) = (hex::<16>().unwrap(), hex::<16>().unwrap());
        assert_eq!((one.len(), two.len()), (32, 32));
        assert_ne!(one, two);
        assert_eq!(to_hex(&[0, 15, 255]), "000fff");
    }
}
