//! What tokens a request needs and where they stand. Source: Envoy: JWT authentication filter; RFC 7519.

mod key;
mod remote;
mod token;

use crate::config::{self, JwtRequirement};
use crate::route::query::parameter;
use crate::route::{Criteria, PathIndex, PathMatcher};
use crate::snapshot::ClusterId;
use crate::text::TextMatcher;
use crate::view::{RequestView, path_only, query_only};
pub use key::{Jwk, KeyKind};
pub use remote::{Fetch, RemoteKeys};
use std::collections::HashMap;
use std::sync::Arc;
pub use token::{Flaw, Token};

/// Compiled [`config::JwtAuthn`].
#[derive(Debug)]
pub struct JwtAuthn {
    /// As it was asked for.
    pub config: config::JwtAuthn,
    /// The providers, by the number that requirements have.
    pub providers: Box<[Provider]>,
    paths: PathIndex,
    rules: Box<[(Criteria, Option<Requirement>)]>,
    requirements: HashMap<Box<str>, Requirement>,
}

/// An issuer of tokens.
#[derive(Debug)]
pub struct Provider {
    /// As it was asked for.
    pub config: config::JwtProvider,
    /// What `sub` must match.
    pub subjects: Option<TextMatcher>,
    /// Its keys.
    pub keys: Keys,
    places: Box<[TokenPlace]>,
}

/// Where keys come from.
#[derive(Debug)]
pub enum Keys {
    /// The configuration.
    Local(Arc<[Jwk]>),
    /// A server.
    Remote(Arc<RemoteKeys>),
}

/// Where a token may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    /// A header, behind this text.
    Header(Box<[u8]>, Box<[u8]>),
    /// A query parameter.
    Parameter(Box<[u8]>),
    /// A cookie.
    Cookie(Box<[u8]>),
}

/// What a request needs.
#[derive(Debug)]
pub enum Requirement {
    /// A token of the provider with this number, with these audiences in place of its own where there are any.
    Provider(usize, Arc<[String]>),
    /// Any of these.
    Any(Box<[Requirement]>),
    /// All of these.
    All(Box<[Requirement]>),
    /// No token, or a good one.
    AllowMissing,
    /// Anything.
    AllowMissingOrFailed,
}

/// Deepest nesting of requirements.
const DEPTH_MAX: usize = 16;

impl JwtAuthn {
    /// Makes it ready; `matches` are the compiled criteria of its rules, with whether case counts.
    pub(crate) fn new(
        from: &config::JwtAuthn,
        matches: Vec<(PathMatcher, bool, Criteria)>,
        cluster: &mut dyn FnMut(&str) -> ClusterId,
        refuse: &mut dyn FnMut(String, String),
    ) -> Self {
        let names: HashMap<&str, usize> =
            from.providers.keys().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        let mut providers = Vec::with_capacity(names.len());
        for (name, provider) in &from.providers {
            providers.push(Provider::new(provider, cluster, &mut |field, reason| {
                refuse(format!("providers[{name}].{field}"), reason);
            }));
        }
        let mut make = |requirement: &JwtRequirement, path: String| {
            Requirement::new(requirement, &names, 0, &mut |reason| refuse(path.clone(), reason))
        };
        let needs: Vec<_> = from
            .rules
            .iter()
            .enumerate()
            .map(|(i, (_, r))| r.as_ref().map(|r| make(r, format!("rules[{i}].requires"))))
            .collect();
        let requirements = from
            .requirements
            .iter()
            .map(|(name, r)| (name.as_str().into(), make(r, format!("requirement_map[{name}]"))))
            .collect();
        let paths = PathIndex::new(matches.iter().map(|(path, case, _)| (path, *case)));
        let rules = matches.into_iter().map(|(_, _, criteria)| criteria).zip(needs).collect();
        Self { config: from.clone(), providers: providers.into(), paths, rules, requirements }
    }

    /// What a request needs by the rules; `None`: nothing.
    pub fn requirement<V: RequestView + ?Sized>(&self, view: &V, draw: u32) -> Option<&Requirement> {
        let number = self.paths.first(path_only(view.path()), view.method() == b"CONNECT", |number| {
            self.rules.get(number as usize).is_some_and(|(criteria, _)| criteria.hold(view, draw))
        })?;
        self.rules.get(number as usize)?.1.as_ref()
    }

    /// The clusters of servers that have keys.
    pub fn clusters(&self) -> impl Iterator<Item = ClusterId> {
        self.providers.iter().filter_map(|provider| match &provider.keys {
            Keys::Local(_) => None,
            Keys::Remote(remote) => Some(remote.cluster),
        })
    }

    /// What stands under this name.
    pub fn named(&self, name: &str) -> Option<&Requirement> {
        self.requirements.get(name)
    }
}

fn places(from: &config::JwtProvider) -> Box<[TokenPlace]> {
    let bytes = |text: &str| -> Box<[u8]> { text.as_bytes().into() };
    let headers =
        from.from_headers.iter().map(|(name, prefix)| TokenPlace::Header(bytes(name), bytes(prefix)));
    let parameters = from.from_params.iter().map(|name| TokenPlace::Parameter(bytes(name)));
    let cookies = from.from_cookies.iter().map(|name| TokenPlace::Cookie(bytes(name)));
    let all: Vec<TokenPlace> = headers.chain(parameters).chain(cookies).collect();
    if !all.is_empty() {
        return all.into();
    }
    [
        TokenPlace::Header(bytes("authorization"), bytes("Bearer ")),
        TokenPlace::Parameter(bytes("access_token")),
    ]
    .into()
}

impl Provider {
    fn new(
        from: &config::JwtProvider,
        cluster: &mut dyn FnMut(&str) -> ClusterId,
        refuse: &mut dyn FnMut(&str, String),
    ) -> Self {
        let subjects = from.subjects.as_ref().and_then(|subjects| {
            TextMatcher::new(subjects).map_err(|reason| refuse("subjects", reason)).ok()
        });
        let keys = match &from.remote_jwks {
            Some(remote) => {
                if remote.target.cluster.is_empty() {
                    refuse("remote_jwks.http_uri.cluster", "must not be empty".into());
                }
                Keys::Remote(Arc::new(RemoteKeys::new(remote, cluster(&remote.target.cluster))))
            }
            None => Keys::Local(
                Jwk::set(&from.local_jwks)
                    .unwrap_or_else(|reason| {
                        refuse("local_jwks", reason);
                        Box::default()
                    })
                    .into(),
            ),
        };
        Self { config: from.clone(), subjects, keys, places: places(from) }
    }

    /// The tokens of a request and where they stand.
    pub fn tokens<'a, V: RequestView + ?Sized>(&'a self, view: &'a V) -> Vec<(&'a TokenPlace, Vec<u8>)> {
        let mut found = Vec::new();
        for place in &self.places {
            match place {
                TokenPlace::Header(name, prefix) => {
                    let Some(value) = view.header(name) else { continue };
                    let Some(start) = memchr::memmem::find(value, prefix) else { continue };
                    let rest = value.get(start + prefix.len()..).unwrap_or_default();
                    found.push((place, token_of(rest, !prefix.is_empty())));
                }
                TokenPlace::Parameter(name) => {
                    let query = query_only(view.path()).unwrap_or_default();
                    found.extend(parameter(query, name).map(|token| (place, token.to_vec())));
                }
                TokenPlace::Cookie(name) => {
                    let Some(cookies) = view.header(b"cookie") else { continue };
                    let mut pairs = cookies.split(|b| *b == b';').map(<[u8]>::trim_ascii);
                    let value = pairs.find_map(|pair| pair.strip_prefix(&**name)?.strip_prefix(b"="));
                    found.extend(value.map(|token| (place, token.to_vec())));
                }
            }
        }
        found
    }
}

/// The token at the beginning of a text: up to the first byte that no token has.
fn token_of(text: &[u8], cut: bool) -> Vec<u8> {
    let text = text.trim_ascii();
    if !cut {
        return text.to_vec();
    }
    let belongs = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'=' | b'+' | b'/');
    let end = text.iter().position(|b| !belongs(b)).unwrap_or(text.len());
    text.get(..end).unwrap_or_default().to_vec()
}

impl Requirement {
    fn new(
        from: &JwtRequirement,
        names: &HashMap<&str, usize>,
        depth: usize,
        refuse: &mut dyn FnMut(String),
    ) -> Self {
        if depth > DEPTH_MAX {
            refuse(format!("nested deeper than {DEPTH_MAX}"));
            return Self::All(Box::default());
        }
        let mut list = |list: &[JwtRequirement]| -> Box<[Self]> {
            list.iter().map(|one| Self::new(one, names, depth + 1, refuse)).collect()
        };
        match from {
            JwtRequirement::Any(several) => Self::Any(list(several)),
            JwtRequirement::All(several) => Self::All(list(several)),
            JwtRequirement::AllowMissing => Self::AllowMissing,
            JwtRequirement::AllowMissingOrFailed => Self::AllowMissingOrFailed,
            JwtRequirement::Provider(name, audiences) => {
                let number = names.get(name.as_str()).copied().unwrap_or_else(|| {
                    refuse(format!("no provider is called `{name}`"));
                    usize::MAX
                });
                Self::Provider(number, audiences.as_slice().into())
            }
        }
    }
}
