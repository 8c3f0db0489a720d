//! Criteria of policies.

use super::AuthzView;
use crate::config::{Permission, Principal, StringMatch};
use crate::metadata::MetadataMatcher;
use crate::route::HeaderMatcher;
use crate::text::TextMatcher;
use crate::view::path_only;
use std::net::IpAddr;
use std::ops::Range;

/// Deepest nesting of and/or/not; matching is recursive, so depth is stack.
const DEPTH_MAX: usize = 64;

/// A compiled [`Permission`].
#[derive(Debug)]
pub(super) enum PermissionMatcher {
    Any,
    And(Box<[Self]>),
    Or(Box<[Self]>),
    Not(Box<Self>),
    Header(HeaderMatcher),
    Path(TextMatcher),
    DestinationIp(Network),
    DestinationPort(Range<u32>),
    RequestedServerName(TextMatcher),
    Metadata(MetadataMatcher),
}

/// A compiled [`Principal`].
#[derive(Debug)]
pub(super) enum PrincipalMatcher {
    Any,
    And(Box<[Self]>),
    Or(Box<[Self]>),
    Not(Box<Self>),
    Authenticated(Option<TextMatcher>),
    DirectRemoteIp(Network),
    RemoteIp(Network),
    Header(HeaderMatcher),
    Path(TextMatcher),
    Metadata(MetadataMatcher),
}

type Refuse<'a> = &'a mut dyn FnMut(String, String);

fn text(from: &StringMatch, path: &str, refuse: Refuse<'_>) -> Option<TextMatcher> {
    TextMatcher::new(from).map_err(|reason| refuse(path.into(), reason)).ok()
}

fn header(from: &crate::config::HeaderMatch, path: &str, refuse: Refuse<'_>) -> Option<HeaderMatcher> {
    HeaderMatcher::for_request(from).map_err(|reason| refuse(format!("{path}.header"), reason)).ok()
}

fn metadata(from: &crate::config::MetadataMatch, path: &str, refuse: Refuse<'_>) -> Option<MetadataMatcher> {
    MetadataMatcher::new(from).map_err(|reason| refuse(format!("{path}.metadata"), reason)).ok()
}

fn network(address: IpAddr, length: u8, path: &str, refuse: Refuse<'_>) -> Option<Network> {
    Network::new(address, length).map_err(|reason| refuse(path.into(), reason)).ok()
}

fn each<T, M>(
    list: &[T],
    path: &str,
    depth: usize,
    refuse: Refuse<'_>,
    make: fn(&T, &str, usize, Refuse<'_>) -> Option<M>,
) -> Option<Box<[M]>> {
    if list.is_empty() {
        refuse(path.into(), "must not be empty".into());
    }
    if depth >= DEPTH_MAX {
        refuse(path.into(), format!("nested deeper than {DEPTH_MAX}"));
        return None;
    }
    Some(
        list.iter()
            .enumerate()
            .filter_map(|(i, x)| make(x, &format!("{path}[{i}]"), depth + 1, refuse))
            .collect(),
    )
}

fn one<T, M>(
    inner: &T,
    path: &str,
    depth: usize,
    refuse: Refuse<'_>,
    make: fn(&T, &str, usize, Refuse<'_>) -> Option<M>,
) -> Option<Box<M>> {
    if depth >= DEPTH_MAX {
        refuse(path.into(), format!("nested deeper than {DEPTH_MAX}"));
        return None;
    }
    make(inner, path, depth + 1, refuse).map(Box::new)
}

impl PermissionMatcher {
    /// `None` where something was refused.
    pub(super) fn new(from: &Permission, path: &str, depth: usize, refuse: Refuse<'_>) -> Option<Self> {
        Some(match from {
            Permission::Any => Self::Any,
            Permission::And(list) => {
                Self::And(each(list, &format!("{path}.and_rules.rules"), depth, refuse, Self::new)?)
            }
            Permission::Or(list) => {
                Self::Or(each(list, &format!("{path}.or_rules.rules"), depth, refuse, Self::new)?)
            }
            Permission::Not(inner) => {
                Self::Not(one(&**inner, &format!("{path}.not_rule"), depth, refuse, Self::new)?)
            }
            Permission::Header(h) => Self::Header(header(h, path, refuse)?),
            Permission::Path(t) => Self::Path(text(t, &format!("{path}.url_path.path"), refuse)?),
            Permission::DestinationIp(address, length) => {
                Self::DestinationIp(network(*address, *length, &format!("{path}.destination_ip"), refuse)?)
            }
            Permission::DestinationPort(port) => {
                Self::DestinationPort(u32::from(*port)..u32::from(*port) + 1)
            }
            Permission::DestinationPortRange(start, end) => {
                if start >= end {
                    refuse(
                        format!("{path}.destination_port_range"),
                        format!("range {start}..{end} is empty"),
                    );
                    return None;
                }
                Self::DestinationPort(u32::from(*start)..u32::from(*end))
            }
            Permission::RequestedServerName(t) => {
                Self::RequestedServerName(text(t, &format!("{path}.requested_server_name"), refuse)?)
            }
            Permission::Metadata(m) => Self::Metadata(metadata(m, path, refuse)?),
        })
    }

    pub(super) fn matches(&self, view: &AuthzView<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::And(list) => list.iter().all(|m| m.matches(view)),
            Self::Or(list) => list.iter().any(|m| m.matches(view)),
            Self::Not(inner) => !inner.matches(view),
            Self::Header(header) => view.request.is_some_and(|r| header.matches(r)),
            Self::Path(text) => view.request.is_some_and(|r| text.is_match(path_only(r.path()))),
            Self::DestinationIp(network) => network.contains(view.destination.ip()),
            Self::DestinationPort(range) => range.contains(&u32::from(view.destination.port())),
            Self::RequestedServerName(text) => text.is_match(view.server_name.unwrap_or_default().as_bytes()),
            Self::Metadata(matcher) => matcher.matches(view.metadata),
        }
    }
}

impl PrincipalMatcher {
    /// `None` where something was refused.
    pub(super) fn new(from: &Principal, path: &str, depth: usize, refuse: Refuse<'_>) -> Option<Self> {
        Some(match from {
            Principal::Any => Self::Any,
            Principal::And(list) => {
                Self::And(each(list, &format!("{path}.and_ids.ids"), depth, refuse, Self::new)?)
            }
            Principal::Or(list) => {
                Self::Or(each(list, &format!("{path}.or_ids.ids"), depth, refuse, Self::new)?)
            }
            Principal::Not(inner) => {
                Self::Not(one(&**inner, &format!("{path}.not_id"), depth, refuse, Self::new)?)
            }
            Principal::Authenticated(None) => Self::Authenticated(None),
            Principal::Authenticated(Some(t)) => {
                Self::Authenticated(Some(text(t, &format!("{path}.authenticated.principal_name"), refuse)?))
            }
            Principal::DirectRemoteIp(address, length) => {
                Self::DirectRemoteIp(network(*address, *length, &format!("{path}.direct_remote_ip"), refuse)?)
            }
            Principal::RemoteIp(address, length) => {
                Self::RemoteIp(network(*address, *length, &format!("{path}.remote_ip"), refuse)?)
            }
            Principal::Header(h) => Self::Header(header(h, path, refuse)?),
            Principal::Path(t) => Self::Path(text(t, &format!("{path}.url_path.path"), refuse)?),
            Principal::Metadata(m) => Self::Metadata(metadata(m, path, refuse)?),
        })
    }

    pub(super) fn matches(&self, view: &AuthzView<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::And(list) => list.iter().all(|m| m.matches(view)),
            Self::Or(list) => list.iter().any(|m| m.matches(view)),
            Self::Not(inner) => !inner.matches(view),
            Self::Authenticated(None) => view.peer.is_some(),
            Self::Authenticated(Some(text)) => view.peer.is_some_and(|peer| {
                let any = |names: &[String]| names.iter().any(|n| text.is_match(n.as_bytes()));
                // The first kind of name that the certificate has decides; the others are not asked.
                match (peer.uri_sans, peer.dns_sans) {
                    ([], []) => text.is_match(peer.subject.as_bytes()),
                    ([], dns) => any(dns),
                    (uri, _) => any(uri),
                }
            }),
            Self::DirectRemoteIp(network) => network.contains(view.direct_remote),
            Self::RemoteIp(network) => network.contains(view.remote),
            Self::Header(header) => view.request.is_some_and(|r| header.matches(r)),
            Self::Path(text) => view.request.is_some_and(|r| text.is_match(path_only(r.path()))),
            Self::Metadata(matcher) => matcher.matches(view.metadata),
        }
    }
}

/// A range of addresses. IPv4 addresses mapped into IPv6 count as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    length: u8,
}

impl Network {
    pub(crate) fn new(address: IpAddr, length: u8) -> Result<Self, String> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        if length > most {
            return Err(format!("prefix length {length} is above {most}"));
        }
        Ok(Self { address, length })
    }

    pub(crate) fn contains(self, other: IpAddr) -> bool {
        let shift = |bits: u8| u32::from(bits - self.length.min(bits));
        match (self.address, other.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let differing = a.to_bits() ^ b.to_bits();
                differing.checked_shr(shift(32)).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let differing = a.to_bits() ^ b.to_bits();
                differing.checked_shr(shift(128)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    pub(crate) fn length(self) -> u8 {
        self.length
    }
}
