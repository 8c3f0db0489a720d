//! What a route does.

use super::split::Draw;
use super::{Choice, Edits, HashRules, HostRewriter, MirrorTarget, PathRewriter, Route, Target};
use crate::balance::Criteria;
use crate::config::{InternalRedirect, Upgrade};
use crate::filter::RouteFilters;
use crate::retry::RetryPolicy;
use crate::snapshot::Snapshot;
use crate::view::{FieldView, RequestView, path_only};
use std::sync::Arc;
use std::time::Duration;

use super::host::split_port;

/// A compiled [`config::Action`](crate::config::Action).
#[derive(Debug)]
pub enum Action {
    /// Send it to a cluster.
    Forward(Arc<Forward>),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer here.
    Direct(Direct),
}

/// Sending a request to a cluster. Times are as in [`config::RouteAction`](crate::config::RouteAction).
#[derive(Debug)]
pub struct Forward {
    /// Which cluster.
    pub choice: Choice,
    /// Status when the cluster does not exist.
    pub cluster_not_found_status: u16,
    /// Rewrite of the path: see [`Route::rewrite_path`].
    pub path_rewrite: Option<PathRewriter>,
    /// Rewrite of the authority, after the share's.
    pub host_rewrite: Option<HostRewriter>,
    /// Append the old authority to x-forwarded-host when it is rewritten.
    pub append_x_forwarded_host: bool,
    /// Until the whole response arrived, from the end of the request; `None` never.
    pub timeout: Option<Duration>,
    /// Overrides the stream idle timeout; `Some(ZERO)` switches it off.
    pub idle_timeout: Option<Duration>,
    /// Overrides the longest life of a stream; `Some(ZERO)` switches it off.
    pub max_stream_duration: Option<Duration>,
    /// `grpc-timeout` is honoured up to this; `Some(ZERO)`: without limit; `None`: not honoured.
    pub grpc_timeout_header_max: Option<Duration>,
    /// Retries: the route's policy, else the virtual host's.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Upgrades allowed or forbidden for this route.
    pub upgrades: Box<[Upgrade]>,
    /// A CONNECT ends here, and its bytes go on over TCP.
    pub connect_ends: bool,
    /// And so does a POST.
    pub post_ends: bool,
    /// Taken off `grpc-timeout`.
    pub grpc_timeout_header_offset: Duration,
    /// The request header whose number chooses among weighted clusters.
    pub split_header: Option<Box<[u8]>>,
    /// Where copies of the request go.
    pub mirrors: Arc<[MirrorTarget]>,
    /// Redirects that are followed here.
    pub internal_redirect: Option<Arc<InternalRedirect>>,
    /// High priority: [`Cluster::breaker`](crate::cluster::Cluster::breaker) of that priority counts.
    pub high_priority: bool,
    /// What of a request decides about its host, where the cluster's policy goes by that.
    pub hash: HashRules,
    /// What is demanded of hosts.
    pub criteria: Option<Arc<Criteria>>,
}

/// The HTTP status to answer with because the cluster of a route does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFoundStatus(pub u16);

impl Route {
    /// Where a request of this route goes; `None` where the route answers itself.
    ///
    /// `draw` is uniformly random over all 64 bits.
    ///
    /// # Errors
    /// The cluster does not exist in `snapshot`.
    pub fn choose<V: RequestView + ?Sized>(
        &self,
        snapshot: &Snapshot,
        view: &V,
        draw: u64,
    ) -> Option<Result<Target<'_>, NotFoundStatus>> {
        let Action::Forward(forward) = &self.action else { return None };
        Some(forward.choose_with(snapshot, view, draw, &self.request_edits, &self.response_edits))
    }

    /// What HTTP filters do for a request of this route; `draw` is the one given to [`choose`](Self::choose).
    pub fn filters<F: FieldView + ?Sized>(&self, fields: &F, draw: u64) -> &RouteFilters {
        let Action::Forward(forward) = &self.action else { return &self.filters };
        forward.choice.filters(forward.draw(fields, draw)).unwrap_or(&self.filters)
    }

    /// Appends the target for the upstream to `out` and says true; false where it stays as it is, or is a text with
    /// commands ([`PathRewriter::format`]), which the engine writes.
    pub fn rewrite_path(&self, target: &[u8], out: &mut Vec<u8>) -> bool {
        let Action::Forward(forward) = &self.action else { return false };
        let Some(rewrite) = &forward.path_rewrite else { return false };
        if rewrite.format().is_some() {
            return false;
        }
        rewrite.rewrite(&self.path, target, out);
        // A rewrite that leaves nothing of the path is none (Envoy).
        if matches!(out.first(), None | Some(b'?' | b'#')) {
            out.clear();
            return false;
        }
        true
    }

    /// Appends the value of `location` to `out` where this route is a redirect.
    ///
    /// Source: Envoy's `RouteEntryImplBase::newUri` by behaviour: the port of the request's authority goes when a port
    /// is given, or when it is the default port of the scheme that is left.
    pub fn location<V: RequestView + ?Sized>(&self, view: &V, out: &mut Vec<u8>) -> bool {
        let Action::Redirect(redirect) = &self.action else { return false };
        let scheme = redirect.scheme.as_deref().unwrap_or(view.scheme());
        out.extend_from_slice(scheme);
        out.extend_from_slice(b"://");
        match &redirect.host {
            Some(host) => out.extend_from_slice(host),
            None if redirect.keeps_authority => out.extend_from_slice(view.authority()),
            None => out.extend_from_slice(kept_authority(view, scheme, redirect.port.is_some())),
        }
        if let Some(port) = &redirect.port {
            out.push(b':');
            out.extend_from_slice(port);
        }
        let target = view.path();
        let path_end = out.len();
        let path = path_only(target);
        match (&redirect.path, &redirect.path_rewrite) {
            (Some(new), _) => {
                out.extend_from_slice(new);
                // A path with a query of its own replaces the request's query too.
                if !new.contains(&b'?') && !redirect.strip_query {
                    out.extend_from_slice(query_with_mark(target, path.len()));
                }
            }
            (None, Some(rewrite)) => {
                let kept = if redirect.strip_query { path } else { target };
                rewrite.rewrite(&self.path, kept, out);
                if matches!(out.get(path_end), None | Some(b'?' | b'#'))
                    && !matches!(rewrite, PathRewriter::Prefix(_))
                {
                    // A rewrite that leaves nothing is none (Envoy).
                    out.truncate(path_end);
                    out.extend_from_slice(kept);
                }
                if redirect.strip_query
                    && let Some(at) = out.get(path_end..).and_then(|path| memchr::memchr(b'?', path))
                {
                    // Also that of the new prefix (Envoy).
                    out.truncate(path_end + at);
                }
            }
            (None, None) => out.extend_from_slice(if redirect.strip_query { path } else { target }),
        }
        if out.len() == path_end {
            out.push(b'/');
        }
        true
    }
}

fn query_with_mark(target: &[u8], path_length: usize) -> &[u8] {
    target.get(path_length..).unwrap_or_default()
}

fn kept_authority<'v, V: RequestView + ?Sized>(view: &'v V, scheme: &[u8], has_port: bool) -> &'v [u8] {
    let authority = view.authority();
    let Some((host, port)) = split_port(authority) else { return authority };
    let left = view.scheme();
    let was_default = (left == b"http" && port == b"80") || (left == b"https" && port == b"443");
    if has_port || (scheme != left && was_default) { host } else { authority }
}

impl Forward {
    /// What chooses a share for a request: the number it brought, else chance.
    pub fn draw<F: FieldView + ?Sized>(&self, fields: &F, random: u64) -> Draw {
        let given =
            || std::str::from_utf8(fields.header(self.split_header.as_ref()?)?).ok()?.trim().parse().ok();
        given().map_or(Draw::Random(random), Draw::Given)
    }

    fn choose_with<'r, V: RequestView + ?Sized>(
        &'r self,
        snapshot: &Snapshot,
        view: &V,
        draw: u64,
        request_edits: &'r Edits,
        response_edits: &'r Edits,
    ) -> Result<Target<'r>, NotFoundStatus> {
        let draw = self.draw(view, draw);
        let (cluster, share) =
            self.choice.choose(snapshot, view, draw).ok_or(NotFoundStatus(self.cluster_not_found_status))?;
        let route_host = self.host_rewrite.as_ref();
        Ok(match share {
            Some(share) => Target {
                cluster,
                share_edits: Some(&share.request_edits),
                request_edits,
                response_edits: &share.response_edits,
                share_host: share.host_rewrite.as_ref(),
                host_rewrite: route_host,
                criteria: share.criteria.as_ref().or(self.criteria.as_ref()),
            },
            None => Target {
                cluster,
                request_edits,
                response_edits,
                share_edits: None,
                share_host: None,
                host_rewrite: route_host,
                criteria: self.criteria.as_ref(),
            },
        })
    }
}

/// A redirect: see [`Route::location`].
#[derive(Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    pub(crate) scheme: Option<Box<[u8]>>,
    pub(crate) host: Option<Box<[u8]>>,
    pub(crate) port: Option<Box<[u8]>>,
    pub(crate) path: Option<Box<[u8]>>,
    pub(crate) path_rewrite: Option<PathRewriter>,
    pub(crate) strip_query: bool,
    /// Leave the authority as it is, whatever its port.
    pub(crate) keeps_authority: bool,
}

/// A response answered here.
#[derive(Debug)]
pub struct Direct {
    /// 200..=599.
    pub status: u16,
    /// Body.
    pub body: Arc<[u8]>,
    /// Type of the body.
    pub content_type: Option<Box<str>>,
}
