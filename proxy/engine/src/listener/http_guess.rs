//! Whether a connection begins with HTTP, told by its first bytes (`http_inspector`).
//!
//! Pure. Only the request line is looked at: it is enough to tell versions apart, and what follows is for the codec.

/// Longest request line that is waited for, bytes. Envoy begins with 8 KiB as well.
pub const LINE_BYTES_MAX: usize = 8 << 10;

/// Longest method that is taken for one.
const METHOD_BYTES_MAX: usize = 32;

/// What an HTTP/2 client sends first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpGuess {
    /// It may be HTTP; more is needed.
    Partial,
    /// A request of HTTP/1.0.
    Http10,
    /// A request of HTTP/1.1.
    Http11,
    /// The preface of HTTP/2.
    Http2,
    /// Something else.
    Other,
}

impl HttpGuess {
    /// The name by which filter chains match it, as Envoy has it.
    pub const fn protocol(self) -> Option<&'static [u8]> {
        match self {
            Self::Http10 => Some(b"http/1.0"),
            Self::Http11 => Some(b"http/1.1"),
            Self::Http2 => Some(b"h2c"),
            Self::Partial | Self::Other => None,
        }
    }
}

/// Looks at the first bytes of a connection.
pub fn guess(bytes: &[u8]) -> HttpGuess {
    if bytes.len() >= PREFACE.len() && bytes.starts_with(PREFACE) {
        return HttpGuess::Http2;
    }
    if PREFACE.starts_with(bytes) {
        return HttpGuess::Partial;
    }
    // An empty line before a request is allowed (RFC 9112 section 2.2).
    let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    if line.is_empty() || line == b"\r" {
        return HttpGuess::Partial;
    }
    let method = line.iter().position(|b| !is_token(*b)).unwrap_or(line.len());
    if method == 0 || method > METHOD_BYTES_MAX {
        return HttpGuess::Other;
    }
    match line.get(method) {
        None => return HttpGuess::Partial,
        Some(b' ') => {}
        Some(_) => return HttpGuess::Other,
    }
    let rest = line.get(method + 1..).unwrap_or_default();
    let Some(end) = memchr::memchr(b'\n', rest) else {
        // No control character stands in a request line.
        let plain = |b: &u8| *b >= b' ' || *b == b'\r';
        let fits = bytes.len() < LINE_BYTES_MAX && rest.iter().all(plain);
        return if fits { HttpGuess::Partial } else { HttpGuess::Other };
    };
    let line = rest.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() < b"/ HTTP/1.1".len() {
        return HttpGuess::Other;
    }
    if line.ends_with(b" HTTP/1.1") {
        HttpGuess::Http11
    } else if line.ends_with(b" HTTP/1.0") {
        HttpGuess::Http10
    } else {
        HttpGuess::Other
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn beginnings_are_told_apart() {
        let table: &[(&[u8], HttpGuess)] = &[
            (b"", HttpGuess::Partial),
            (b"P", HttpGuess::Partial),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", HttpGuess::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nSM", HttpGuess::Partial),
            (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", HttpGuess::Other),
            (b"PRIVATE / HTTP/1.1\r\n", HttpGuess::Http11),
            (b"GET", HttpGuess::Partial),
            (b"GET /", HttpGuess::Partial),
            (b"GET / HTTP/1.1\r\n", HttpGuess::Http11),
            (b"\r\nGET / HTTP/1.1\r\n", HttpGuess::Http11),
            (b"GET / HTTP/1.0\n", HttpGuess::Http10),
            (b"GET http://b.demo.mesh/x?y HTTP/1.1\r\nhost", HttpGuess::Http11),
            (b"M-SEARCH * HTTP/1.1\r\n", HttpGuess::Http11),
            (b"GET / HTTP/2.0\r\n", HttpGuess::Other),
            (b"GET /\r\n", HttpGuess::Other),
            (b"EHLO mail.test\r\n", HttpGuess::Other),
            (b"SSH-2.0-OpenSSH_9.2\r\n", HttpGuess::Other),
            (b"GET /\x01", HttpGuess::Other),
            (b"\x16\x03\x01", HttpGuess::Other),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", HttpGuess::Other),
            (b"*1\r\n$4\r\nPING\r\n", HttpGuess::Other),
        ];
        for (bytes, expected) in table {
            assert_eq!(guess(bytes), *expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn request_line_is_waited_for_up_to_its_limit() {
        let mut line = b"GET /".to_vec();
        line.resize(LINE_BYTES_MAX - 1, b'a');
        assert_eq!(guess(&line), HttpGuess::Partial);
        line.push(b'a');
        assert_eq!(guess(&line), HttpGuess::Other);
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_verdict(bytes in proptest::collection::vec(any::<u8>(), 0..80), head in 0..3_usize) {
            let mut all = [&b""[..], b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0"][head].to_vec();
            all.extend(bytes);
            let mut verdict = HttpGuess::Partial;
            for n in 0..=all.len() {
                let now = guess(&all[..n]);
                if verdict != HttpGuess::Partial {
                    prop_assert_eq!(now, verdict, "at {}", n);
                }
                verdict = now;
            }
        }
    }
}
