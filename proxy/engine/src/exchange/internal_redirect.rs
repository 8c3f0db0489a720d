//! Redirects of the upstream that are followed here instead of by the client.
//!
//! [`followed`] decides, when a response head is there and before anything of it is passed on: the policy wants the
//! status, the request is here as a whole, `location` is a whole URI with a scheme that may be followed, and it leads to a
//! route. [`follow`] makes the next request of it. Source: Envoy: internal redirects.

use outrigger_traffic::config::InternalRedirect;
use outrigger_traffic::route::Route;
use outrigger_traffic::view::ClientCertificate;
use outrigger_traffic::{FieldView, RequestView};
use outrigger_wire::Scheme;
use outrigger_wire::h1::BodyLength;
use std::sync::Arc;

use super::forward::Plan;
use super::notes::Notes;
use super::retry::Replay;
use super::{Exchange, Front};
use crate::error::ProxyError;
use crate::http::view::{ClientView, HeadView};

/// Where a request goes next.
#[derive(Debug)]
pub(super) struct Redirection {
    scheme: Scheme,
    authority: Vec<u8>,
    path: Vec<u8>,
    /// It becomes a GET without body (303).
    becomes_get: bool,
    copied: Vec<(String, Option<Vec<u8>>)>,
}

/// Where the request is to go next; `None`: the response is passed on.
pub(super) fn followed(
    x: &Front,
    notes: &mut Notes,
    plan: &Plan,
    replay: &Replay,
) -> Option<Box<Redirection>> {
    let policy = plan.forward.internal_redirect.as_deref()?;
    let status = x.response.status;
    if !policy.statuses.contains(&status) {
        return None;
    }
    let found = next(x, notes, policy, replay);
    let stats = plan.cluster.stats.at(x.worker().id);
    match &found {
        Some((_, route)) => {
            stats.upstream_internal_redirect_succeeded_total.inc();
            notes.redirects += 1;
            if policy.new_routes_only {
                notes.redirect_routes.push(route.clone());
            }
        }
        None => stats.upstream_internal_redirect_failed_total.inc(),
    }
    found.map(|(redirection, _)| redirection)
}

fn next(
    x: &Front,
    notes: &Notes,
    policy: &InternalRedirect,
    replay: &Replay,
) -> Option<(Box<Redirection>, Arc<Route>)> {
    if !replay.ended || replay.lost || notes.redirects >= policy.max {
        return None;
    }
    let location = x.response.fields.get(b"location")?;
    let (scheme, rest) = match (location.strip_prefix(b"http://"), location.strip_prefix(b"https://")) {
        (Some(rest), _) => (Scheme::Http, rest),
        (_, Some(rest)) => (Scheme::Https, rest),
        (None, None) => return None,
    };
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, target) = rest.split_at_checked(end)?;
    if authority.is_empty() || authority.contains(&b'@') {
        return None;
    }
    let target = target.split(|b| *b == b'#').next().unwrap_or_default();
    let path = if target.first() == Some(&b'/') { target.to_vec() } else { [b"/", target].concat() };
    let was = x.request.scheme();
    let is_safe = was == scheme || was == Scheme::Https;
    if (was != scheme && !policy.cross_scheme) || (policy.safe_cross_scheme && !is_safe) {
        return None;
    }
    let view = Moved {
        client: ClientView {
            head: HeadView(&x.request),
            facts: &x.connection.facts,
            metadata: notes.metadata.as_deref(),
        },
        scheme,
        authority,
        path: &path,
    };
    let route = x.serving.table(&HeadView(&x.request))?.find(&view, x.worker().draw_u32())?.route;
    let is_listed =
        policy.allowed_routes.as_ref().is_none_or(|names| names.iter().any(|n| **n == *route.name));
    let is_new = !policy.new_routes_only
        || !(notes.redirect_routes.iter().chain(&notes.route)).any(|other| Arc::ptr_eq(other, route));
    if !is_listed || !is_new {
        return None;
    }
    let method = x.request.method_bytes();
    let copied = policy
        .copied_headers
        .iter()
        .map(|name| (name.clone(), x.response.fields.get(name.as_bytes()).map(<[u8]>::to_vec)));
    let redirection = Box::new(Redirection {
        scheme,
        authority: authority.to_vec(),
        path,
        becomes_get: x.response.status == 303 && method != b"GET" && method != b"HEAD",
        copied: copied.collect(),
    });
    Some((redirection, route.clone()))
}

/// Makes the next request of the one before.
pub(super) fn follow(
    x: &mut Exchange,
    redirection: &Redirection,
    replay: &mut Replay,
) -> Result<(), ProxyError> {
    let request = &mut x.front.request;
    let url = [request.scheme().as_bytes(), b"://", request.authority(), request.path()].concat();
    request.fields.set(b"x-envoy-original-url", &url);
    for (name, value) in &redirection.copied {
        match value {
            Some(value) => {
                request.fields.set(name.as_bytes(), value);
            }
            None => {
                request.fields.remove(name.as_bytes());
            }
        }
    }
    if redirection.becomes_get {
        request.set_method(b"GET");
        request.fields.remove(b"content-length");
        request.fields.remove(b"transfer-encoding");
        x.body = BodyLength::None;
        replay.kept = Vec::new();
    }
    request.set_scheme(redirection.scheme);
    let fits = request.set_authority(&redirection.authority) && request.set_path(&redirection.path);
    if fits { Ok(()) } else { Err(ProxyError::BadPath) }
}

/// A request as it would be elsewhere.
struct Moved<'a> {
    client: ClientView<'a>,
    scheme: Scheme,
    authority: &'a [u8],
    path: &'a [u8],
}

impl FieldView for Moved<'_> {
    fn header(&self, lower: &[u8]) -> Option<&[u8]> {
        match lower {
            b":authority" | b"host" => Some(self.authority),
            b":path" => Some(self.path),
            b":scheme" => Some(self.scheme.as_bytes()),
            _ => self.client.header(lower),
        }
    }

    fn for_each_header(&self, lower: &[u8], f: &mut dyn FnMut(&[u8])) {
        if lower.first() == Some(&b':') || lower == b"host" {
            if let Some(value) = self.header(lower) {
                f(value);
            }
            return;
        }
        self.client.for_each_header(lower, f);
    }
}

impl RequestView for Moved<'_> {
    fn method(&self) -> &[u8] {
        self.client.method()
    }

    fn scheme(&self) -> &[u8] {
        self.scheme.as_bytes()
    }

    fn authority(&self) -> &[u8] {
        self.authority
    }

    fn path(&self) -> &[u8] {
        self.path
    }

    fn client_certificate(&self) -> ClientCertificate {
        self.client.client_certificate()
    }
}
