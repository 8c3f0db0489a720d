//! From a request head to the rule that says what happens to it.
//!
//! [`RouteTable::find`] takes the virtual host of the request's authority ([`host`]), and of its ordered routes the
//! first whose path ([`path`]), headers ([`header`]) and query ([`query`]) match. The route's [`Action`] then names
//! a cluster ([`split`]), rewrites ([`rewrite`]), or answers itself.

pub mod action;
pub mod edits;
pub mod hash;
pub mod header;
mod host;
pub mod mirror;
mod path;
pub mod query;
pub mod rewrite;
mod scope;
pub mod split;
mod uri_template;

pub use action::{Action, Direct, Forward, Redirect};
pub use edits::{Edit, Edits};
pub use hash::HashRules;
pub use header::HeaderMatcher;
pub use host::{HostIndex, split_port, without_port};
pub use mirror::MirrorTarget;
pub use path::{PathIndex, PathMatcher};
pub use query::QueryMatcher;
pub use rewrite::{HostRewriter, PathRewriter};
pub use scope::Scopes;
pub use split::{Choice, Target};
pub use uri_template::{UriRewrite, UriTemplate};

use crate::config;
use crate::filter::{RateLimitRules, RouteFilters};
use crate::metadata::MetadataMatcher;
use crate::snapshot::ClusterId;
use crate::view::{ClientCertificate, RequestView, path_only};
use std::sync::Arc;

/// A compiled route table.
#[derive(Debug)]
pub struct RouteTable {
    /// What it was compiled from; equal ones are not compiled again.
    pub config: Arc<config::RouteConfig>,
    pub(crate) hosts: Arc<HostIndex>,
    pub(crate) virtual_hosts: Box<[Arc<VirtualHost>]>,
    /// Clusters its routes name, each once.
    pub(crate) references: Box<[ClusterId]>,
}

/// A compiled virtual host.
#[derive(Debug)]
pub struct VirtualHost {
    /// Its name, for logs and metrics.
    pub name: Arc<str>,
    /// Pass `x-envoy-attempt-count` to the upstream.
    pub include_request_attempt_count: bool,
    /// Send `x-envoy-attempt-count` in the response.
    pub include_attempt_count_in_response: bool,
    pub(crate) routes: Box<[Arc<Route>]>,
    pub(crate) paths: PathIndex,
    /// Set where plaintext requests are redirected to https.
    pub(crate) tls_redirect: Option<Arc<Route>>,
    pub(crate) references: Box<[ClusterId]>,
}

/// A compiled route.
#[derive(Debug)]
pub struct Route {
    /// Its name, for logs and metrics; may be empty.
    pub name: Arc<str>,
    /// What to do.
    pub action: Action,
    /// To the request, merged with the virtual host's and the table's in Envoy's order. For forwarded requests use
    /// [`Target::request_edits`], which knows the weighted share.
    pub request_edits: Edits,
    /// To the response, merged likewise.
    pub response_edits: Edits,
    /// What HTTP filters do for it. A weighted share may say otherwise: see [`Route::filters`].
    pub filters: RouteFilters,
    /// By what its requests are told apart for rate limits.
    pub rate_limits: RateLimitRules,
    /// Largest body kept for retries, bytes; `None`: the connection's buffer limit.
    pub per_request_buffer_limit_bytes: Option<u32>,
    /// Name of the operation in traces.
    pub decorator: Option<Arc<str>>,
    /// What holds for its traces alone.
    pub tracing: Option<Box<crate::tracing::RouteTracing>>,
    pub(crate) path: PathMatcher,
    pub(crate) criteria: Criteria,
}

/// What a route asks beside the path.
#[derive(Debug, Default)]
pub(crate) struct Criteria {
    pub(crate) headers: Box<[HeaderMatcher]>,
    pub(crate) query: Box<[QueryMatcher]>,
    pub(crate) grpc: bool,
    pub(crate) fraction: Option<config::Fraction>,
    pub(crate) tls: Option<config::TlsMatch>,
    pub(crate) metadata: Box<[MetadataMatcher]>,
}

impl Criteria {
    pub(crate) fn is_empty(&self) -> bool {
        self.headers.is_empty()
            && self.query.is_empty()
            && !self.grpc
            && self.fraction.is_none()
            && self.tls.is_none()
            && self.metadata.is_empty()
    }

    pub(crate) fn hold<V: RequestView + ?Sized>(&self, view: &V, draw: u32) -> bool {
        self.fraction.is_none_or(|f| f.contains(draw))
            && (!self.grpc || is_grpc(view))
            && self.tls.is_none_or(|wanted| is_shown(wanted, view.client_certificate()))
            && self.headers.iter().all(|h| h.matches(view))
            && self.metadata.iter().all(|m| m.matches(view.metadata()))
            && (self.query.is_empty() || query::all_match(&self.query, view.path()))
    }
}

fn is_shown(wanted: config::TlsMatch, seen: ClientCertificate) -> bool {
    wanted.presented.is_none_or(|is| is == seen.presented)
        && wanted.validated.is_none_or(|is| is == seen.validated)
}

/// Whether a request is gRPC: its content type is `application/grpc`, alone or followed by `+` or parameters.
/// Source: Envoy's `Grpc::Common::hasGrpcContentType`; `application/grpc-web` is something else.
pub fn is_grpc<V: RequestView + ?Sized>(view: &V) -> bool {
    let Some(value) = view.header(b"content-type") else { return false };
    matches!(value.strip_prefix(b"application/grpc"), Some([] | [b'+' | b';', ..]))
}

/// A route that was found.
#[derive(Clone, Copy, Debug)]
pub struct Matched<'t> {
    /// Its virtual host.
    pub virtual_host: &'t Arc<VirtualHost>,
    /// The route.
    pub route: &'t Arc<Route>,
}

impl RouteTable {
    /// The rule for a request; `None` where no virtual host or no route matches.
    ///
    /// `draw` is a uniformly random number for `runtime_fraction`.
    ///
    /// Cost: two to four hash or tree look-ups, no allocation for authorities of up to 256 bytes.
    pub fn find<V: RequestView + ?Sized>(&self, view: &V, draw: u32) -> Option<Matched<'_>> {
        let number = self.hosts.find(view.authority())?;
        let virtual_host = self.virtual_hosts.get(number as usize)?;
        let route = virtual_host.find(view, draw)?;
        Some(Matched { virtual_host, route })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// All virtual hosts, in order.
    pub fn virtual_hosts(&self) -> &[Arc<VirtualHost>] {
        &self.virtual_hosts
    }

    /// Clusters its routes name, each once.
    pub fn references(&self) -> &[ClusterId] {
        &self.references
    }
}

impl VirtualHost {
    fn find<V: RequestView + ?Sized>(&self, view: &V, draw: u32) -> Option<&Arc<Route>> {
        if let Some(redirect) = &self.tls_redirect
            && !view.scheme().eq_ignore_ascii_case(b"https")
        {
            return Some(redirect);
        }
        let path = path_only(view.path());
        let is_connect = view.method() == b"CONNECT";
        let number = self.paths.first(path, is_connect, |number| {
            let Some(route) = self.routes.get(number as usize) else { return false };
            route.criteria.is_empty() || route.criteria.hold(view, draw)
        })?;
        self.routes.get(number as usize)
    }

    /// All routes, in order.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }
}

#[cfg(test)]
pub(crate) mod tests;
