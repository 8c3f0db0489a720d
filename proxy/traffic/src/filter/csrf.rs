//! Whether a request that changes something comes from a page of the same host. Source: Envoy: CSRF filter.

use crate::config;
use crate::text::TextMatcher;
use crate::view::RequestView;

/// Compiled [`config::CsrfPolicy`].
#[derive(Debug)]
pub struct CsrfPolicy {
    /// As it was asked for.
    pub config: config::CsrfPolicy,
    origins: Box<[TextMatcher]>,
}

/// What is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The request changes nothing.
    Harmless,
    /// A page of the same host, or of one that may send it.
    Same,
    /// The request does not say where it comes from.
    Missing,
    /// A page of another host.
    Other,
}

impl CsrfPolicy {
    pub(crate) fn new(from: &config::CsrfPolicy, refuse: &mut dyn FnMut(String, String)) -> Self {
        let mut origins = Vec::with_capacity(from.additional_origins.len());
        for (i, origin) in from.additional_origins.iter().enumerate() {
            match TextMatcher::new(origin) {
                Ok(matcher) => origins.push(matcher),
                Err(reason) => refuse(format!("additional_origins[{i}]"), reason),
            }
        }
        Self { config: from.clone(), origins: origins.into() }
    }

    /// Where a request comes from.
    pub fn source<V: RequestView + ?Sized>(&self, view: &V) -> Source {
        if !matches!(view.method(), b"POST" | b"PUT" | b"DELETE" | b"PATCH") {
            return Source::Harmless;
        }
        let host = |name: &[u8]| view.header(name).map(host_and_port).filter(|host| !host.is_empty());
        let Some(source) = host(b"origin").or_else(|| host(b"referer")) else { return Source::Missing };
        if source == view.authority() || self.origins.iter().any(|one| one.is_match(source)) {
            Source::Same
        } else {
            Source::Other
        }
    }
}

/// Host and port of an absolute URL; of anything else, all of it.
fn host_and_port(url: &[u8]) -> &[u8] {
    let rest = url.strip_prefix(b"http://").or_else(|| url.strip_prefix(b"https://"));
    let Some(rest) = rest else { return url };
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    rest.get(..end).unwrap_or_default()
}
