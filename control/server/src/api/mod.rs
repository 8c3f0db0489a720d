//! The operator API: REST, JSON, under `/api/v1`.
//!
//! In reading order: [`route`] (the table every route is in, and from which the router and the OpenAPI
//! document are made), [`auth`] (who may call), [`error`] (what a failure looks like), then one file per
//! thing: [`resource`], [`proxy`], [`token`], [`host`], [`attestation`], [`operator`], [`ca`], [`probe`].

pub mod route;

pub mod openapi;

pub mod auth;

pub mod error;

pub mod resource;

pub mod proxy;

pub mod token;

pub mod host;

pub mod attestation;

pub mod operator;

pub mod ca;

pub mod probe;

use std::sync::Arc;

use crate::identity::{Authority, Hosts, JoinTokens};
use crate::publish::Publisher;
use crate::source::{Catalog, Registry};
use crate::store::SharedStore;
use crate::telemetry::Metrics;

/// What the API acts on.
pub struct Api {
    /// Resources, operator tokens, grants.
    pub store: SharedStore,
    /// Join tokens.
    pub tokens: JoinTokens,
    /// Hosts that join tokens are made for.
    pub hosts: Hosts,
    /// Applies, and knows the proxies.
    pub publisher: Arc<Publisher>,
    /// Knows the workloads that registered.
    pub registry: Arc<Registry>,
    /// Knows all workloads, and the sources.
    pub catalog: Arc<Catalog>,
    /// The certificate authority.
    pub authority: Arc<Authority>,
    /// Held while operators' tokens are withdrawn, so that two cannot take away the last two of each other.
    pub changing_operators: tokio::sync::Mutex<()>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}
