//! Scoped routes: a connection manager with several route tables, of which each request has one by what its headers say.

use super::RouteConfig;
use serde::{Deserialize, Serialize};

/// `ScopedRoutes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScopedRoutes {
    /// What the key of a request is made of, part by part.
    pub key: Vec<KeyPart>,
    /// The scopes. A request whose key none has finds no route.
    pub scopes: Vec<Scope>,
}

/// A part of a header's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    /// The header, lower case.
    pub header: String,
    /// What its value is split at; empty: it is one element.
    pub separator: String,
    /// Which element.
    pub element: KeyElement,
}

/// Which element of a header's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyElement {
    /// By position, from 0.
    Index(u32),
    /// The value of the first element with this key.
    Value {
        /// Between key and value.
        separator: String,
        /// The key.
        key: String,
    },
}

/// A route table and the key of its requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scope {
    /// Its name.
    pub name: String,
    /// The parts of the key.
    pub key: Vec<String>,
    /// The table.
    pub table: ScopeTable,
}

/// The table of a scope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ScopeTable {
    /// A [`RouteConfig`] of the configuration, by name (RDS).
    Named(String),
    /// Written here.
    Inline(Box<RouteConfig>),
}
