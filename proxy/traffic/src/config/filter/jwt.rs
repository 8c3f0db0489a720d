//! JSON Web Tokens (`envoy.extensions.filters.http.jwt_authn.v3`).

use crate::config::{RouteMatch, StringMatch};
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
    /// Its keys: a JSON Web Key Set (RFC 7517).
    pub local_jwks: String,
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
