//! What of a request ring hash and Maglev go by (`envoy.config.route.v3.RouteAction.HashPolicy`).

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One part of a request's hash. The parts of all policies are combined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashPolicy {
    /// Where it is taken from.
    pub source: HashSource,
    /// Where there is a hash by now, later policies are not looked at.
    pub terminal: bool,
}

/// Where a part of the hash is taken from. What is not there adds nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HashSource {
    /// The values of a header, in whatever order they stand.
    Header {
        /// Lower case.
        name: String,
        /// Every match of the pattern is replaced first: pattern and replacement.
        rewrite: Option<(String, String)>,
    },
    /// The value of a cookie, which is made where it is not there and has a lifetime.
    Cookie(HashCookie),
    /// The address (without port) that the request comes from.
    SourceIp,
    /// The first value of a parameter in the query.
    Query(String),
}

/// A cookie that keeps a client with its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashCookie {
    /// Name.
    pub name: String,
    /// Lifetime of a cookie made here; zero lives as long as the client's session. `None`: none is made.
    pub ttl: Option<Duration>,
    /// Path of a cookie made here; may be empty.
    pub path: String,
    /// Further attributes of a cookie made here: name and value; the value may be empty.
    pub attributes: Vec<(String, String)>,
}
