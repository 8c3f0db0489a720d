//! What keeps a client with its host: the hash of its request, and cookies made for it.

use super::Front;
use super::notes::Notes;
use crate::http::view::HeadView;
use outrigger_traffic::config::HashCookie;
use outrigger_traffic::hash::xxh64;
use outrigger_traffic::route::HashRules;
use std::fmt::Write as _;

/// The hash of a request by the rules of its route; cookies that it makes go to `set_cookies`.
pub(super) fn hash(
    x: &Front,
    notes: &Notes,
    rules: &HashRules,
    set_cookies: &mut Vec<Vec<u8>>,
) -> Option<u64> {
    let facts = &x.connection.facts;
    let mut make = |cookie: &HashCookie| {
        // The same for all requests of a connection, so that those sent at once agree. Source: Envoy: cookie hash policy.
        let value = format!("{:016x}", xxh64(format!("{}{}", facts.remote, facts.local).as_bytes(), 0));
        set_cookies.push(set_cookie(cookie, &value).into_bytes());
        value.into_bytes()
    };
    rules.hash(&HeadView(&x.request), notes.remote.ip(), &mut make)
}

/// The value of `set-cookie`.
pub(crate) fn set_cookie(cookie: &HashCookie, value: &str) -> String {
    let mut text = format!("{}=\"{value}\"", cookie.name);
    // Writing to a String cannot fail.
    if let Some(seconds) = cookie.ttl.map(|ttl| ttl.as_secs()).filter(|seconds| *seconds > 0) {
        let _ = write!(text, "; Max-Age={seconds}");
    }
    if !cookie.path.is_empty() {
        let _ = write!(text, "; Path={}", cookie.path);
    }
    for (name, value) in &cookie.attributes {
        let _ = if value.is_empty() { write!(text, "; {name}") } else { write!(text, "; {name}={value}") };
    }
    text.push_str("; HttpOnly");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn cookie_has_its_lifetime_path_and_attributes() {
        let mut cookie = HashCookie {
            name: "sid".into(),
            ttl: Some(Duration::from_millis(9_900)),
            path: "/app".into(),
            attributes: vec![("Secure".into(), String::new()), ("SameSite".into(), "Lax".into())],
        };
        let expected = "sid=\"v\"; Max-Age=9; Path=/app; Secure; SameSite=Lax; HttpOnly";
        assert_eq!(set_cookie(&cookie, "v"), expected);
        cookie =
            HashCookie { ttl: Some(Duration::ZERO), path: String::new(), attributes: Vec::new(), ..cookie };
        assert_eq!(set_cookie(&cookie, "v"), "sid=\"v\"; HttpOnly");
    }
}
