//! `RequestAuthentication`: which tokens requests may bring. A request without any is let through: an
//! `AuthorizationPolicy` says whether it needs one.

use std::collections::BTreeMap;
use std::time::Duration;

use outrigger_traffic::filter::jwt::Jwk;

use super::peer_authentication::read_selector;
use super::read::{Fields, Node};
use super::shape;

/// Time for the server with the keys where a rule has none. Source: Istio.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Rules for the workloads that carry some labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestAuthentication {
    /// Labels; `None`: the whole namespace, or the mesh when it stands in the root namespace.
    pub selector: Option<BTreeMap<String, String>>,
    /// Tokens that are accepted.
    pub rules: Vec<JwtRule>,
}

/// `JWTRule`: tokens of one issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRule {
    /// `iss` of the tokens.
    pub issuer: String,
    /// One of these must be in `aud`; empty: any.
    pub audiences: Vec<String>,
    /// Where the issuer's keys are.
    pub keys: Keys,
    /// Headers with tokens: name, and what stands before the token.
    pub from_headers: Vec<(String, String)>,
    /// Query parameters with tokens.
    pub from_params: Vec<String>,
    /// Cookies with tokens.
    pub from_cookies: Vec<String>,
    /// Header that gets the payload; empty: none.
    pub output_payload_to_header: String,
    /// Headers that get claims: header, claim.
    pub output_claim_to_headers: Vec<(String, String)>,
    /// The token stays in the request.
    pub forward_original_token: bool,
    /// Time for the server with the keys.
    pub timeout: Duration,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Here: a JSON Web Key Set.
    Inline(String),
    /// At a server.
    Uri(KeysUri),
}

/// A URI of a key set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysUri {
    /// `https`, else `http`.
    pub https: bool,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Host and port as written.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

impl RequestAuthentication {
    pub(super) fn read(spec: &Node<'_>) -> Option<Self> {
        spec.message(&shape::REQUEST_AUTHENTICATION, |f| Self {
            selector: read_selector(f),
            rules: f.list("jwtRules").iter().filter_map(JwtRule::read).collect(),
        })
    }
}

impl JwtRule {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::JWT_RULE, |f| {
            let issuer = f.required("issuer").map(|n| n.name()).unwrap_or_default();
            let header = |n: &Node<'_>| {
                n.message(&shape::JWT_HEADER, |f| {
                    (f.required("name").map(|n| header_name(&n)).unwrap_or_default(), f.text("prefix"))
                })
            };
            let claim = |n: &Node<'_>| {
                n.message(&shape::CLAIM_TO_HEADER, |f| {
                    let header = f.required("header").map(|n| header_name(&n)).unwrap_or_default();
                    (header, f.required("claim").map(|n| n.name()).unwrap_or_default())
                })
            };
            Some(Self {
                issuer,
                audiences: f.list("audiences").iter().map(|n| n.name()).collect(),
                keys: keys(f)?,
                from_headers: f.list("fromHeaders").iter().filter_map(header).collect(),
                from_params: f.texts("fromParams"),
                from_cookies: f.texts("fromCookies"),
                output_payload_to_header: f
                    .field("outputPayloadToHeader")
                    .map(|n| header_name(&n))
                    .unwrap_or_default(),
                output_claim_to_headers: f.list("outputClaimToHeaders").iter().filter_map(claim).collect(),
                forward_original_token: f.field("forwardOriginalToken").is_some_and(|n| n.flag()),
                timeout: f.field("timeout").map_or(TIMEOUT, |n| n.duration()),
            })
        })
        .flatten()
    }
}

fn header_name(node: &Node<'_>) -> String {
    let name = node.name().to_ascii_lowercase();
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) {
        node.problem(format!("{name:?} is no header name"));
    }
    name
}

/// The keys. Without either field Istio asks the issuer's discovery document; here that is to be written out.
fn keys(f: &Fields<'_>) -> Option<Keys> {
    match (f.field("jwks"), f.field("jwksUri").or_else(|| f.field("jwks_uri"))) {
        (Some(_), Some(uri)) => {
            uri.problem("cannot be given together with jwks");
            None
        }
        (Some(set), None) => {
            let text = set.text();
            if let Err(reason) = Jwk::set(&text) {
                set.problem(reason);
                return None;
            }
            Some(Keys::Inline(text))
        }
        (None, Some(uri)) => parse_uri(&uri.name()).map(Keys::Uri).or_else(|| {
            uri.problem("is not a usable http or https URI");
            None
        }),
        (None, None) => {
            f.problem("", "one of jwks and jwksUri is needed: the issuer's discovery document is not asked");
            None
        }
    }
}

fn parse_uri(text: &str) -> Option<KeysUri> {
    let (https, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return None,
    };
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    if !rest.bytes().all(|b| b > b' ' && b < 0x7f && b != b'#') || authority.contains(['@', '?']) {
        return None;
    }
    let standard = if https { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !authority.ends_with(']') => (host, port.parse().ok().filter(|p| *p > 0)?),
        _ => (authority, standard),
    };
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() {
        return None;
    }
    Some(KeysUri {
        https,
        host: host.to_owned(),
        port,
        authority: authority.to_owned(),
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::parse_uri;

    #[test]
    fn uris_are_taken_apart() {
        let parts = |text| parse_uri(text).map(|u| (u.https, u.host, u.port, u.path));
        let some =
            |https, host: &str, port, path: &str| Some((https, host.to_owned(), port, path.to_owned()));
        assert_eq!(parts("https://a.b/keys?x=1"), some(true, "a.b", 443, "/keys?x=1"));
        assert_eq!(parts("http://a.b:8080"), some(false, "a.b", 8080, "/"));
        assert_eq!(parts("https://[::1]:8443/k"), some(true, "::1", 8443, "/k"));
        assert_eq!(parts("http://[::1]/k"), some(false, "::1", 80, "/k"));
        for bad in [
            "a.b/keys",
            "ftp://a",
            "https:///k",
            "https://u@a/k",
            "https://a:0/k",
            "https://a:b/k",
            "https://a b/",
        ] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }
}
