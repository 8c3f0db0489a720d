//! Authorization rules (`envoy.config.rbac.v3`, and the network and HTTP filters of that name).

use super::{HeaderMatch, MetadataMatch, StringMatch};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The filter: enforced rules, and rules that are only counted and logged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rbac {
    /// Enforced; `None` allows all.
    pub rules: Option<Rules>,
    /// Only evaluated.
    pub shadow_rules: Option<Rules>,
    /// Prefix of metrics (network filter) and of shadow results.
    pub stat_prefix: String,
}

/// Policies and what a match of any of them means. Policies are evaluated in the order of their names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// Meaning of a match.
    pub action: RbacAction,
    /// By name, ascending.
    pub policies: Vec<(String, Policy)>,
}

/// Meaning of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RbacAction {
    /// Allowed when a policy matches, else denied.
    Allow,
    /// Denied when a policy matches, else allowed.
    Deny,
    /// Always allowed; a match sets the log hint.
    Log,
}

/// Matches when any permission and any principal match.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// What is done.
    pub permissions: Vec<Permission>,
    /// Who does it.
    pub principals: Vec<Principal>,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Permission {
    /// Anything.
    Any,
    /// All of these.
    And(Vec<Permission>),
    /// Any of these.
    Or(Vec<Permission>),
    /// Not this.
    Not(Box<Permission>),
    /// A request header (`:method` for the method). Never matches on a connection.
    Header(HeaderMatch),
    /// The path without query. Never matches on a connection.
    Path(StringMatch),
    /// Local address in a range, `(address, prefix length)`.
    DestinationIp(IpAddr, u8),
    /// Local port.
    DestinationPort(u16),
    /// Local port in `start..end`.
    DestinationPortRange(u16, u16),
    /// SNI.
    RequestedServerName(StringMatch),
    /// What filters before learned. Of a connection, nothing was.
    Metadata(MetadataMatch),
}

/// Who does it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Principal {
    /// Anyone.
    Any,
    /// All of these.
    And(Vec<Principal>),
    /// Any of these.
    Or(Vec<Principal>),
    /// Not this.
    Not(Box<Principal>),
    /// The verified peer certificate has a URI SAN (else DNS SAN, else subject) that matches; `None`: any verified peer.
    Authenticated(Option<StringMatch>),
    /// Address of the connection's peer in a range.
    DirectRemoteIp(IpAddr, u8),
    /// Client address after x-forwarded-for in a range.
    RemoteIp(IpAddr, u8),
    /// A request header. Never matches on a connection.
    Header(HeaderMatch),
    /// The path without query. Never matches on a connection.
    Path(StringMatch),
    /// What filters before learned. Of a connection, nothing was.
    Metadata(MetadataMatch),
}
