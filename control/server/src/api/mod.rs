//! The operator API: REST, JSON, under `/api/v1`.
//!
//! In reading order: [`route`] (the table every route is in, and from which the router and the OpenAPI
//! document are made), [`auth`] (who may call), [`error`] (what a failure looks like), then one file per
//! thing: [`resource`], [`proxy`], [`token`], [`ca`], [`probe`].

pub mod route;

pub mod openapi;

pub mod auth;

pub mod error;

pub mod resource;

pub mod proxy;

pub mod token;

pub mod ca;

pub mod probe;

use std::sync::Arc;

use crate::identity::Authority;
use crate::publish::Publisher;
use crate::source::Registry;
use crate::store::SharedStore;
use crate::telemetry::Metrics;

/// What the API acts on.
pub struct Api {
    /// Resources, tokens.
    pub store: SharedStore,
    /// Applies, and knows the proxies.
    pub publisher: Arc<Publisher>,
    /// Knows the workloads.
    pub registry: Arc<Registry>,
    /// The certificate authority.
    pub authority: Arc<Authority>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}
