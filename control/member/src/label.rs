//! DNS labels: names of namespaces, service accounts, ports.

/// Longest label, bytes (RFC 1035 section 2.3.4).
pub const LABEL_BYTES_MAX: usize = 63;

/// Whether `text` is a DNS label in lower case (RFC 1123 section 2.1).
pub fn is_label(text: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short_and_begin_and_end_with_a_letter_or_digit() {
        for good in ["a", "0", "a-b", &"x".repeat(LABEL_BYTES_MAX)] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "é", &"x".repeat(LABEL_BYTES_MAX + 1)] {
            assert!(!is_label(bad), "{bad}");
        }
    }
}
