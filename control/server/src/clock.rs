//! The wall clock, read at the edges and passed on as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub type UnixMs = i64;

/// Now. A clock before 1970 or after the year 292,000,000 reads as 0.
pub fn unix_ms() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(0)
}

/// RFC 3339, UTC, to the second; for people and for the API.
pub fn rfc3339(at: UnixMs) -> String {
    jiff::Timestamp::from_second(at.div_euclid(1_000))
        .map_or_else(|_| at.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_written_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_700_000_000_999), "2023-11-14T22:13:20Z");
        assert!(unix_ms() > 1_700_000_000_000);
    }
}
