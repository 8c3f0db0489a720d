//! Routes of requests.

use std::collections::BTreeMap;
use std::time::Duration;

use outrigger_traffic::config::{CorsPolicy, Fault, Fraction, StringMatch};

use super::shaping::{read_cors, read_fault};
use super::{Destination, read_destinations, read_weight};
use crate::resource::document::is_host;
use crate::resource::read::{Fields, Node};
use crate::resource::shape;

/// A rule for requests.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRoute {
    /// For logs.
    pub name: String,
    /// Any of these; empty: all.
    pub matches: Vec<HttpMatch>,
    /// What is done.
    pub action: HttpAction,
    /// Rewrites before sending on.
    pub rewrite: Option<Rewrite>,
    /// Time for the whole response; `None` and zero: no limit.
    pub timeout: Option<Duration>,
    /// Instead of the mesh's default.
    pub retries: Option<Retries>,
    /// Header edits.
    pub headers: Headers,
    /// Copies.
    pub mirrors: Vec<MirrorRule>,
    /// Faults that are put in.
    pub fault: Option<Fault>,
    /// What holds for pages of other origins.
    pub cors: Option<CorsPolicy>,
}

/// `HTTPMirrorPolicy`.
#[derive(Clone, Debug, PartialEq)]
pub struct MirrorRule {
    /// Where the copy goes.
    pub destination: Destination,
    /// Share of requests that are copied.
    pub share: Fraction,
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum HttpAction {
    /// Sent to one of these.
    Route(Vec<HttpDestination>),
    /// Answered with a redirect.
    Redirect(Redirect),
    /// Answered.
    Respond(Respond),
}

/// Which requests: all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpMatch {
    /// For logs.
    pub name: String,
    /// Path.
    pub uri: Option<StringMatch>,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// Method.
    pub method: Option<StringMatch>,
    /// Host, with the port where the request has one.
    pub authority: Option<StringMatch>,
    /// Headers by name; `None`: present.
    pub headers: Vec<(String, Option<StringMatch>)>,
    /// Headers that must not match.
    pub without_headers: Vec<(String, Option<StringMatch>)>,
    /// Query parameters by name; `None`: present.
    pub query: Vec<(String, Option<StringMatch>)>,
    /// Port of the service or gateway.
    pub port: Option<u16>,
    /// Instead of the VirtualService's own list.
    pub gateways: Vec<String>,
    /// Labels of the caller.
    pub source_labels: BTreeMap<String, String>,
    /// Namespace of the caller.
    pub source_namespace: Option<String>,
    /// The path is compared without regard to case.
    pub ignore_uri_case: bool,
}

/// A share of requests.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpDestination {
    /// Where to.
    pub destination: Destination,
    /// Share of the sum, above 0.
    pub weight: u32,
    /// Header edits of this share.
    pub headers: Headers,
}

/// `HTTPRedirect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// New path.
    pub uri: Option<String>,
    /// New host.
    pub authority: Option<String>,
    /// New port.
    pub port: Option<u16>,
    /// New scheme.
    pub scheme: Option<String>,
    /// Status.
    pub status: u16,
}

/// `HTTPDirectResponse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// Status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

/// `HTTPRewrite`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Of the path.
    pub path: Option<PathRewriteRule>,
    /// Of the host.
    pub authority: Option<String>,
}

/// How a path is rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewriteRule {
    /// What was matched is replaced.
    Matched(String),
    /// By pattern.
    Regex {
        /// What is replaced.
        pattern: String,
        /// By what.
        substitution: String,
    },
}

/// `HTTPRetry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// After the first; 0 switches retries off.
    pub attempts: u32,
    /// Time for each.
    pub per_try_timeout: Option<Duration>,
    /// Envoy's conditions and status codes; `None`: the default ones.
    pub retry_on: Option<Vec<String>>,
    /// Other hosts first. Default true.
    pub ignore_previous_hosts: bool,
    /// First interval of the back-off.
    pub backoff: Option<Duration>,
}

/// Header edits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Of requests.
    pub request: HeaderOperations,
    /// Of responses.
    pub response: HeaderOperations,
}

/// Edits of one head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOperations {
    /// Replaced or added.
    pub set: Vec<(String, String)>,
    /// Added to what is there.
    pub add: Vec<(String, String)>,
    /// Removed.
    pub remove: Vec<String>,
}

impl HttpRoute {
    pub(super) fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::HTTP_ROUTE, |f| Self {
            name: f.text("name"),
            matches: f.list("match").iter().filter_map(HttpMatch::read).collect(),
            action: read_action(f),
            rewrite: f.field("rewrite").and_then(|n| Rewrite::read(&n)),
            timeout: f.field("timeout").map(|n| n.duration()),
            retries: f.field("retries").and_then(|n| Retries::read(&n)),
            headers: read_headers(f, true),
            mirrors: read_mirrors(f),
            fault: f.field("fault").and_then(|n| read_fault(&n)),
            cors: f.field("corsPolicy").and_then(|n| read_cors(&n)),
        })
    }
}

/// `mirror` with its share in one of three spellings, or `mirrors`.
fn read_mirrors(f: &Fields<'_>) -> Vec<MirrorRule> {
    let shares = ["mirrorPercentage", "mirrorPercent", "mirror_percent"];
    let given: Vec<&str> = shares.into_iter().filter(|name| f.field(name).is_some()).collect();
    if let [_, second, ..] = given.as_slice() {
        f.problem(second, "the share of a mirror is given twice");
    }
    let mirrors = f.list("mirrors");
    let Some(single) = f.field("mirror") else {
        if let Some(name) = given.first() {
            f.problem(name, "needs a mirror");
        }
        return mirrors.iter().filter_map(MirrorRule::read).collect();
    };
    if !mirrors.is_empty() {
        f.problem("mirrors", "excludes mirror");
    }
    let share = match given.first() {
        None => Fraction::ONE,
        Some(&"mirrorPercentage") => f.field("mirrorPercentage").map_or(Fraction::ONE, |n| percentage(&n)),
        Some(name) => {
            let whole = f.field(name).map_or(100, |n| n.number(0, 100));
            Fraction::from_millionths(whole * 10_000)
        }
    };
    Destination::read(&single).map(|destination| MirrorRule { destination, share }).into_iter().collect()
}

/// `Percent`.
pub(super) fn percentage(node: &Node<'_>) -> Fraction {
    let value = node.message(&shape::PERCENT, |f| f.field("value").map_or(0.0, |n| n.decimal(0.0, 100.0)));
    // In range, so the cast keeps the value.
    Fraction::from_millionths((value.unwrap_or_default() * 10_000.0).round() as u32)
}

impl MirrorRule {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::MIRROR_POLICY, |f| {
            let destination = f.required("destination").and_then(|n| Destination::read(&n))?;
            let share = f.field("percentage").map_or(Fraction::ONE, |n| percentage(&n));
            Some(Self { destination, share })
        })
        .flatten()
    }
}

fn read_action(f: &Fields<'_>) -> HttpAction {
    let redirect = f.field("redirect").and_then(|n| Redirect::read(&n));
    let respond = f.field("directResponse").and_then(|n| Respond::read(&n));
    let given =
        [f.field("redirect").is_some(), f.field("directResponse").is_some(), !f.list("route").is_empty()];
    if given.iter().filter(|given| **given).count() != 1 {
        f.problem("", "exactly one of route, redirect and directResponse is needed");
    }
    if f.list("route").is_empty()
        && ["rewrite", "timeout", "retries", "mirror", "mirrors"].iter().any(|name| f.field(name).is_some())
    {
        f.problem("", "rewrite, timeout, retries and mirrors need a route");
    }
    match (redirect, respond) {
        (Some(redirect), _) => HttpAction::Redirect(redirect),
        (None, Some(respond)) => HttpAction::Respond(respond),
        (None, None) => HttpAction::Route(read_destinations(f, HttpDestination::read, |d| &mut d.weight)),
    }
}

impl HttpDestination {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::HTTP_DESTINATION, |f| {
            let destination = f.required("destination").and_then(|n| Destination::read(&n))?;
            Some(Self { destination, weight: read_weight(f), headers: read_headers(f, true) })
        })
        .flatten()
    }
}

impl HttpMatch {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::HTTP_MATCH, |f| {
            let plain = |name| f.field(name).and_then(|n: Node<'_>| given(&n));
            let ignore_uri_case = f.field("ignoreUriCase").is_some_and(|n| n.flag());
            let uri = plain("uri");
            if let (Some(uri), Some(node)) = (&uri, f.field("uri")) {
                use outrigger_traffic::config::StringPattern::{Exact, Prefix};
                if let Exact(path) | Prefix(path) = &uri.pattern
                    && !path.starts_with('/')
                {
                    node.problem("a path begins with \"/\"");
                }
            }
            Self {
                name: f.text("name"),
                uri,
                scheme: plain("scheme"),
                method: plain("method"),
                authority: plain("authority"),
                headers: read_header_matches(f, "headers"),
                without_headers: read_header_matches(f, "withoutHeaders"),
                query: named(f, "queryParams"),
                port: f.field("port").map(|n| n.port()),
                gateways: f.texts("gateways"),
                source_labels: f.texts_by_key("sourceLabels"),
                source_namespace: f.field("sourceNamespace").map(|n| n.name()),
                ignore_uri_case,
            }
        })
    }
}

/// A match that must say something.
fn given(node: &Node<'_>) -> Option<StringMatch> {
    let found = node.string_match(false);
    if found.is_none() && node.raw().as_object().is_some_and(serde_json::Map::is_empty) {
        node.problem("one of exact, prefix and regex is needed");
    }
    found
}

fn named(f: &Fields<'_>, name: &'static str) -> Vec<(String, Option<StringMatch>)> {
    let entries = f.field(name).map(|n| n.entries()).unwrap_or_default();
    entries
        .into_iter()
        .map(|(key, node)| (key, if node.raw().is_null() { None } else { node.string_match(false) }))
        .collect()
}

fn read_header_matches(f: &Fields<'_>, name: &'static str) -> Vec<(String, Option<StringMatch>)> {
    let mut found = named(f, name);
    for (header, _) in &mut found {
        *header = header.to_ascii_lowercase();
        if matches!(
            header.as_str(),
            ":path"
                | ":method"
                | ":scheme"
                | ":authority"
                | "host"
                | "uri"
                | "scheme"
                | "method"
                | "authority"
        ) {
            f.problem(name, format!("{header:?} is matched by a field of its own"));
        } else if !is_header_name(header) {
            f.problem(name, format!("{header:?} is no header name"));
        }
    }
    found
}

impl Redirect {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::REDIRECT, |f| {
            let status = f.field("redirectCode").map_or(301, |n| {
                let code = n.number(0, 65_535);
                if !matches!(code, 301 | 302 | 303 | 307 | 308) {
                    n.problem("must be 301, 302, 303, 307 or 308");
                }
                u16::try_from(code).unwrap_or(301)
            });
            let scheme = f.field("scheme").map(|n| n.name());
            if scheme.as_deref().is_some_and(|s| s != "http" && s != "https") {
                f.problem("scheme", "must be http or https");
            }
            let redirect = Self {
                uri: f.field("uri").map(|n| n.name()),
                authority: f.field("authority").map(|n| n.name()),
                port: f.field("port").map(|n| n.port()),
                scheme,
                status,
            };
            if (&redirect.uri, &redirect.authority, redirect.port, &redirect.scheme) == (&None, &None, None, &None) {
                f.problem("", "a redirect to the same place would never end: one of uri, authority, port and scheme is needed");
            }
            redirect
        })
    }
}

/// Longest body of a direct response, as Envoy's default.
const BODY_BYTES_MAX: usize = 4096;

impl Respond {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::DIRECT_RESPONSE, |f| {
            let status = f.required("status").map_or(200, |n| n.number(200, 599));
            let body = f.field("body").and_then(|n| {
                n.message(&shape::HTTP_BODY, |f| {
                    let (string, bytes) = (f.field("string"), f.field("bytes"));
                    if string.is_some() == bytes.is_some() {
                        f.problem("", "exactly one of string and bytes is needed");
                    }
                    let decoded = bytes.map(|n| super::super::secret::decode(&n));
                    string.map(|n| n.text().into_bytes()).or(decoded).unwrap_or_default()
                })
            });
            let body = body.unwrap_or_default();
            if body.len() > BODY_BYTES_MAX {
                f.problem("body", format!("is longer than {BODY_BYTES_MAX} bytes"));
            }
            Self { status: u16::try_from(status).unwrap_or(200), body }
        })
    }
}

impl Rewrite {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::REWRITE, |f| {
            let matched = f.field("uri").map(|n| PathRewriteRule::Matched(n.name()));
            let regex = f.field("uriRegexRewrite").and_then(|n| {
                n.message(&shape::REGEX_REWRITE, |f| PathRewriteRule::Regex {
                    pattern: f.required("match").map(|n| n.name()).unwrap_or_default(),
                    substitution: f.required("rewrite").map(|n| n.text()).unwrap_or_default(),
                })
            });
            if matched.is_some() && regex.is_some() {
                f.problem("", "only one of uri and uriRegexRewrite can be given");
            }
            let authority = f.field("authority").map(|n| n.name());
            if matched.is_none() && regex.is_none() && authority.is_none() {
                f.problem("", "one of uri, uriRegexRewrite and authority is needed");
            }
            Self { path: matched.or(regex), authority }
        })
    }
}

/// Most attempts after the first.
const ATTEMPTS_MAX: u32 = 100;

impl Retries {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::RETRIES, |f| {
            let retry_on = f.field("retryOn").map(|n| {
                let text = n.text();
                let words: Vec<String> =
                    text.split(',').map(|w| w.trim().to_owned()).filter(|w| !w.is_empty()).collect();
                for word in &words {
                    if let Err(reason) = crate::retry::condition(word) {
                        n.problem(reason);
                    }
                }
                words
            });
            let per_try_timeout = f.field("perTryTimeout").map(|n| n.duration()).filter(|d| !d.is_zero());
            let backoff = f.field("backoff").map(|n| {
                let interval = n.duration();
                if interval < Duration::from_millis(1) {
                    n.problem("must be at least 1ms");
                }
                interval
            });
            Self {
                attempts: f.field("attempts").map_or(crate::retry::ATTEMPTS, |n| n.number(0, ATTEMPTS_MAX)),
                per_try_timeout,
                retry_on: retry_on.filter(|words| !words.is_empty()),
                ignore_previous_hosts: f.field("retryIgnorePreviousHosts").is_none_or(|n| n.flag()),
                backoff,
            }
        })
    }
}

/// Reads `headers:`. With `authority`, setting the host of a request is allowed: it becomes a rewrite.
fn read_headers(f: &Fields<'_>, authority: bool) -> Headers {
    let read = f.field("headers").and_then(|n| {
        n.message(&shape::HEADERS, |f| Headers {
            request: f.field("request").and_then(|n| read_operations(&n, authority)).unwrap_or_default(),
            response: f.field("response").and_then(|n| read_operations(&n, false)).unwrap_or_default(),
        })
    });
    read.unwrap_or_default()
}

fn read_operations(node: &Node<'_>, authority: bool) -> Option<HeaderOperations> {
    node.message(&shape::HEADER_OPERATIONS, |f| {
        let pairs = |name: &'static str| -> Vec<(String, String)> {
            f.texts_by_key(name).into_iter().map(|(key, value)| (key.to_ascii_lowercase(), value)).collect()
        };
        let operations = HeaderOperations {
            set: pairs("set"),
            add: pairs("add"),
            remove: f.texts("remove").iter().map(|name| name.to_ascii_lowercase()).collect(),
        };
        for (name, _) in &operations.set {
            let is_authority = matches!(name.as_str(), "host" | ":authority");
            if !(is_header_name(name) && name != "host" || is_authority && authority) {
                f.problem("set", format!("{name:?} cannot be set"));
            }
        }
        for name in operations.add.iter().map(|(name, _)| name).chain(&operations.remove) {
            if !is_header_name(name) || name == "host" {
                f.problem("", format!("{name:?} cannot be added or removed"));
            }
        }
        for (name, value) in operations.set.iter().chain(&operations.add) {
            if value.bytes().any(|b| b < 0x20 && b != b'\t' || b == 0x7f) {
                f.problem("", format!("the value for {name:?} has a control character"));
            }
            if matches!(name.as_str(), "host" | ":authority")
                && !is_host(value.split(':').next().unwrap_or_default())
            {
                f.problem("set", format!("{value:?} is no host"));
            }
        }
        operations
    })
}

/// RFC 9110 §5.6.2: a token.
fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
