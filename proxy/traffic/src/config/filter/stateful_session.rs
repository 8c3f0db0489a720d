//! Sessions that stay with their host (`envoy.extensions.filters.http.stateful_session.v3`).

use crate::config::HashCookie;
use serde::{Deserialize, Serialize};

/// What the filter does, and what a route wants instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatefulSession {
    /// Where the client keeps its host; `None`: nowhere, and no session has one.
    pub state: Option<SessionState>,
    /// A request whose host cannot be used is answered with 503; otherwise it gets another host. Default false.
    pub strict: bool,
    /// What becomes of sessions is counted. Default false.
    pub counted: bool,
}

/// Where a client keeps the host of its session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionState {
    /// In a cookie. Without `ttl`, or with one of zero, it lives as long as the client's session.
    Cookie(HashCookie),
    /// In a header of responses that the client repeats in its requests, lower case.
    Header(String),
}

/// What a route says of its sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionRoute {
    /// There are none.
    Disabled,
    /// These, in place of the filter's.
    Instead(StatefulSession),
}
