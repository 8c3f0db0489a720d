//! JSON Web Tokens (`envoy.extensions.filters.http.jwt_authn.v3`).

use crate::config::{CallRetry, HttpTarget, RouteMatch, StringMatch};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Requests must bring tokens. Of the rules the first one that matches holds; requests that none matches pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JwtAuthn {
    /// Who issues tokens, by name.
    pub providers: BTreeMap<String, JwtProvider>,
    /// What requests need; `None`: nothing.
    pub rules: Vec<(RouteMatch, Option<JwtRequirement>)>,
    /// What routes may name.
    pub requirements: BTreeMap<String, JwtRequirement>,
    /// CORS preflights pass.
    pub bypass_cors_preflight: bool,
    /// The client is not told why it is refused.
    pub strip_failure_response: bool,
}

/// An issuer of tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JwtProvider {
    /// `iss` of its tokens; empty: any.
    pub issuer: String,
    /// One of these must be in `aud`; empty: any.
    pub audiences: Vec<String>,
    /// `sub` must match.
    pub subjects: Option<StringMatch>,
    /// `exp` must be there.
    pub require_expiration: bool,
    /// Longest time between now and `exp`.
    pub max_lifetime: Option<Duration>,
    /// Its keys: a JSON Web Key Set (RFC 7517). Empty where they come from a server.
    pub local_jwks: String,
    /// The server that has its keys.
    pub remote_jwks: Option<RemoteJwks>,
    /// The token stays in the request. Default false.
    pub forward: bool,
    /// Headers with tokens: lower-case name, and what stands before the token. With no place given: `authorization` with
    /// `Bearer `, and the parameter `access_token`.
    pub from_headers: Vec<(String, String)>,
    /// Query parameters with tokens.
    pub from_params: Vec<String>,
    /// Cookies with tokens.
    pub from_cookies: Vec<String>,
    /// Header that gets the payload in base64url; empty: none. Lower case.
    pub forward_payload_header: String,
    /// That with padding.
    pub pad_forward_payload_header: bool,
    /// Difference of clocks that is tolerated. Default 60 s.
    pub clock_skew: Duration,
    /// Claims (with dots between the names of nested ones) that go into headers: header, claim.
    pub claim_to_headers: Vec<(String, String)>,
    /// The route is looked for again after a token was accepted.
    pub clear_route_cache: bool,
    /// Key in the metadata of `envoy.filters.http.jwt_authn` under which the claims are; empty: they are not there.
    pub payload_in_metadata: String,
    /// The same for the token's header.
    pub header_in_metadata: String,
    /// Claims that are lists of words in one text, and lists in the metadata.
    pub space_delimited_claims: Vec<String>,
}

/// A server that has the keys of an issuer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoteJwks {
    /// Where it is.
    pub target: HttpTarget,
    /// How long keys are used before they are asked for again. Default 10 min.
    pub cache: Duration,
    /// They are asked for before a request needs them, and again so long after a failure.
    pub ahead: Option<Duration>,
    /// How often a failed request is made again; `None`: not.
    pub retry: Option<CallRetry>,
}

impl RemoteJwks {
    /// With the defaults.
    pub fn at(target: HttpTarget) -> Self {
        Self { target, cache: Duration::from_secs(600), ahead: None, retry: None }
    }
}

/// What a request needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum JwtRequirement {
    /// A token of this provider; with audiences in place of the provider's where there are any.
    Provider(String, Vec<String>),
    /// Any of these.
    Any(Vec<JwtRequirement>),
    /// All of these.
    All(Vec<JwtRequirement>),
    /// No token, or a good one.
    AllowMissing,
    /// Anything; good tokens are taken note of.
    AllowMissingOrFailed,
}

/// What a route says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JwtRoute {
    /// Nothing is needed.
    Disabled,
    /// What `requirements` has under this name.
    Requirement(String),
}
