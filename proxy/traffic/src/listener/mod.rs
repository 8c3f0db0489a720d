//! Which filter chain a connection takes, compiled.
//!
//! [`matching`] holds the rule of precedence. A chain ends in HTTP (with a route table and authorization rules) or in
//! TCP (with a cluster choice).

mod matching;

pub use matching::ConnView;

use crate::authz::CompiledRbac;
use crate::config;
use crate::filter::HttpFilter;
use crate::route::{Choice, Edits, Scopes};
use crate::snapshot::TableId;
use crate::template::Template;
pub(crate) use matching::ChainMatcher;
use std::sync::Arc;

/// A compiled listener.
#[derive(Debug)]
pub struct Listener {
    /// What was asked for.
    pub config: Arc<config::Listener>,
    /// The chains in order; the default chain, where there is one, is the last.
    pub chains: Box<[Arc<FilterChain>]>,
    /// Whether the first bytes must be looked at: asked for, or needed by a chain's match.
    pub needs_inspector: bool,
    pub(crate) matchers: Box<[ChainMatcher]>,
    pub(crate) has_default: bool,
}

/// A compiled filter chain.
#[derive(Debug)]
pub struct FilterChain {
    /// What was asked for, terminal included.
    pub config: config::FilterChain,
    /// Position in [`Listener::chains`].
    pub index: usize,
    /// Rules for the connection, in order; all must allow it.
    pub network_rbac: Box<[CompiledRbac]>,
    /// What is done with the connection.
    pub terminal: Terminal,
}

/// The compiled last filter.
#[derive(Debug)]
pub enum Terminal {
    /// Served as HTTP.
    Http(HttpChain),
    /// Passed on as bytes.
    Tcp(TcpChain),
}

/// HTTP, compiled.
#[derive(Debug)]
pub struct HttpChain {
    /// What was asked for.
    pub config: Arc<config::HttpConnectionManager>,
    /// The route table; nothing stands behind the number while an RDS table has not arrived.
    pub table: TableId,
    /// Several tables, of which each request has one; then nothing stands behind `table`.
    pub scopes: Option<Box<Scopes>>,
    /// The filters before the router, in order.
    pub filters: Box<[HttpFilter]>,
}

/// TCP, compiled.
#[derive(Debug)]
pub struct TcpChain {
    /// What was asked for.
    pub config: Arc<config::TcpProxy>,
    /// Which cluster: ask [`Choice::choose`] with [`NoFields`](crate::view::NoFields).
    pub choice: Choice,
    /// The request that carries the connection.
    pub tunnel: Option<Box<Tunnel>>,
}

/// The request that carries a connection, compiled.
#[derive(Debug)]
pub struct Tunnel {
    /// Its authority.
    pub authority: Template,
    /// Path of a POST; `None`: CONNECT.
    pub post_path: Option<Box<[u8]>>,
    /// Its header fields.
    pub headers: Edits,
}

impl Listener {
    /// The chain for a connection; `None`: close it.
    ///
    /// Cost: linear in the number of chains, per connection.
    pub fn chain_for(&self, view: &ConnView<'_>) -> Option<&Arc<FilterChain>> {
        match matching::most_specific(&self.matchers, view) {
            Some(at) => self.chains.get(at),
            None if self.has_default => self.chains.last(),
            None => None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }
}
