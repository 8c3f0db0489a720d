//! Sessions that stay with their host: who keeps what, and how a host is written down.
//!
//! A cookie holds, in base64, a message of two fields: the address of the host, and when that ends to be true (seconds since
//! 1970; only where the cookie has a lifetime). A header holds the address alone. Source: Envoy: stateful session, whose
//! cookies and headers these are.

use crate::config::{self, HashCookie, SessionState};
use crate::route::hash::cookie;
use crate::view::RequestView;
use std::net::SocketAddr;

/// Longest cookie or header that is looked at, in base64: an address takes some 60 bytes.
pub const STATE_MAX: usize = 512;

/// Field 1 of the message in a cookie, a text: the address.
const TAG_ADDRESS: u64 = 1 << 3 | 2;
/// Field 2, a number: the end.
const TAG_EXPIRES: u64 = 2 << 3;

/// The filter, or what a route has instead.
#[derive(Debug)]
pub struct StatefulSession {
    /// What was asked for.
    pub config: config::StatefulSession,
}

/// What a route says of its sessions.
#[derive(Debug)]
pub enum SessionRoute {
    /// There are none.
    Disabled,
    /// These.
    Instead(StatefulSession),
}

impl StatefulSession {
    /// Checks the settings; `refuse` takes the field and the reason.
    pub fn new(config: &config::StatefulSession, refuse: &mut dyn FnMut(String, String)) -> Self {
        let (field, name) = match &config.state {
            None => ("", "-"),
            Some(SessionState::Cookie(cookie)) => ("session_state.typed_config.cookie.name", &*cookie.name),
            Some(SessionState::Header(name)) => ("session_state.typed_config.name", &**name),
        };
        if name.is_empty() {
            refuse(field.to_owned(), "must not be empty".to_owned());
        }
        Self { config: config.clone() }
    }

    /// Whether requests of this path have a session; `None` where they have none.
    pub fn state_for(&self, path: &[u8]) -> Option<&SessionState> {
        let state = self.config.state.as_ref()?;
        match state {
            SessionState::Cookie(cookie) if !is_under(path, cookie.path.as_bytes()) => None,
            _ => Some(state),
        }
    }
}

impl SessionState {
    /// What the client kept, still in base64.
    pub fn kept(&self, view: &impl RequestView) -> Option<Vec<u8>> {
        let fits = |value: &&[u8]| !value.is_empty() && value.len() <= STATE_MAX;
        match self {
            Self::Header(name) => view.header(name.as_bytes()).filter(fits).map(<[u8]>::to_vec),
            Self::Cookie(wanted) => {
                let mut found = None;
                view.for_each_header(b"cookie", &mut |line| {
                    if found.is_none() {
                        found = cookie(line, wanted.name.as_bytes()).filter(fits).map(<[u8]>::to_vec);
                    }
                });
                found
            }
        }
    }

    /// The host in what the client kept, after base64; `now` in seconds since 1970.
    pub fn read(&self, decoded: &[u8], now: u64) -> Option<SessionHost> {
        let plain = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok();
        if let Some(address) = plain(decoded) {
            return Some(SessionHost::At(address));
        }
        match self {
            Self::Header(_) => (!decoded.is_empty()).then_some(SessionHost::Nowhere),
            Self::Cookie(_) => {
                let Some((address, expires)) = message(decoded) else {
                    // Something that somebody wrote; a host is not known by it.
                    return (!decoded.is_empty()).then_some(SessionHost::Nowhere);
                };
                if address.is_empty() || (expires > 0 && now > expires) {
                    return None;
                }
                Some(plain(address).map_or(SessionHost::Nowhere, SessionHost::At))
            }
        }
    }

    /// What the client is to keep of a host, before base64; `now` in seconds since 1970.
    pub fn write(&self, host: SocketAddr, now: u64) -> Vec<u8> {
        let text = host.to_string();
        let Self::Cookie(cookie) = self else { return text.into_bytes() };
        let mut out = Vec::with_capacity(text.len() + 12);
        put(&mut out, TAG_ADDRESS);
        put(&mut out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
        if let Some(ttl) = lifetime(cookie) {
            put(&mut out, TAG_EXPIRES);
            put(&mut out, now.saturating_add(ttl));
        }
        out
    }
}

/// What a session says of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionHost {
    /// It is this one.
    At(SocketAddr),
    /// It is none that there could be.
    Nowhere,
}

/// Seconds, where there are any.
fn lifetime(cookie: &HashCookie) -> Option<u64> {
    cookie.ttl.map(|ttl| ttl.as_secs()).filter(|seconds| *seconds > 0)
}

/// RFC 6265 §5.1.4, but a path that ends with a slash is a prefix as it stands.
fn is_under(target: &[u8], path: &[u8]) -> bool {
    if matches!(path, b"" | b"/") {
        return true;
    }
    let Some(rest) = target.strip_prefix(path) else { return false };
    path.ends_with(b"/") || rest.first().is_none_or(|next| matches!(next, b'/' | b'?' | b'#'))
}

/// Address and end in a message; `None` where it is none. Unknown fields are passed over.
fn message(mut bytes: &[u8]) -> Option<(&[u8], u64)> {
    let (mut address, mut expires): (&[u8], u64) = (&[], 0);
    while !bytes.is_empty() {
        let tag = take(&mut bytes)?;
        match tag & 7 {
            0 => {
                let number = take(&mut bytes)?;
                if tag == TAG_EXPIRES {
                    expires = number;
                }
            }
            2 => {
                let length = usize::try_from(take(&mut bytes)?).ok()?;
                let (text, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                if tag == TAG_ADDRESS {
                    address = text;
                }
            }
            1 => bytes = bytes.get(8..)?,
            5 => bytes = bytes.get(4..)?,
            _ => return None,
        }
        if tag >> 3 == 0 {
            return None;
        }
    }
    Some((address, expires))
}

/// A number of seven bits a byte, the lowest first.
fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn by_cookie(ttl: Option<u64>, path: &str) -> SessionState {
        SessionState::Cookie(HashCookie {
            name: "sid".into(),
            ttl: ttl.map(Duration::from_secs),
            path: path.into(),
            attributes: Vec::new(),
        })
    }

    #[test]
    fn cookie_is_the_message_of_envoy_and_is_read_again() {
        let host: SocketAddr = "127.0.0.1:34227".parse().unwrap();
        // As the real one made it at 1795469310, with a lifetime of 100 seconds.
        let made = b"\n\x0f127.0.0.1:34227\x10\xe2\xe0\x92\xd8\x06";
        let with = by_cookie(Some(100), "");
        assert_eq!(with.write(host, 1_795_469_310), made.to_vec());
        assert_eq!(with.read(made, 1_795_469_410), Some(SessionHost::At(host)));
        assert_eq!(with.read(made, 1_795_469_411), None, "its time is over");
        let without = by_cookie(None, "").write(host, 9);
        assert_eq!(without, made[..17].to_vec());
        assert_eq!(by_cookie(Some(0), "").write(host, 9), without);
        for v6 in ["[::1]:80", "[2001:db8::7]:65535"] {
            let host = v6.parse().unwrap();
            assert_eq!(with.read(&with.write(host, 5), 5), Some(SessionHost::At(host)));
        }
    }

    #[test]
    fn foreign_cookies_name_no_host_and_break_nothing() {
        let cookie = by_cookie(None, "");
        let host = "10.0.0.1:80".parse().unwrap();
        assert_eq!(cookie.read(b"10.0.0.1:80", 0), Some(SessionHost::At(host)), "an address as it is");
        assert_eq!(cookie.read(b"", 0), None);
        assert_eq!(cookie.read(b"\x0a\x00", 0), None);
        assert_eq!(cookie.read(b"\x0a\x05hello", 0), Some(SessionHost::Nowhere));
        assert_eq!(
            cookie.read(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 0),
            Some(SessionHost::Nowhere)
        );
        let with_more = b"\x1a\x02xy\x25abcd\x0a\x0b10.0.0.1:80\x29abcdefgh";
        assert_eq!(cookie.read(with_more, 0), Some(SessionHost::At(host)));
        for end in 0..with_more.len() {
            let _ = cookie.read(&with_more[..end], 0);
        }
    }

    #[test]
    fn session_belongs_to_the_path_of_its_cookie() {
        let session = |path| {
            StatefulSession::new(
                &config::StatefulSession {
                    state: Some(by_cookie(None, path)),
                    strict: false,
                    counted: false,
                },
                &mut |field, reason| panic!("{field}: {reason}"),
            )
        };
        for (path, inside, outside) in [
            ("", "/x", None),
            ("/", "/x", None),
            ("/p", "/p", Some("/px")),
            ("/p", "/p?q", Some("/")),
            ("/p", "/p/x", Some("/P")),
            ("/p/", "/p/", Some("/p")),
        ] {
            let session = session(path);
            assert!(session.state_for(inside.as_bytes()).is_some(), "{path} {inside}");
            assert!(outside.is_none_or(|outside| session.state_for(outside.as_bytes()).is_none()), "{path}");
        }
    }
}
