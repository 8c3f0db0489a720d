//! What configuration takes its meaning from beside itself: runtime values, settings of extensions, scopes.
//!
//! They arrive like resources (RTDS, ECDS, SRDS) and are no part of the configuration: what names them is translated with
//! them in hand, and translated anew when they change.

use crate::ads::Kind;
use crate::runtime::{self, LayerKind, Runtime};
use outrigger_api::envoy::config::core::v3::TypedExtensionConfig;
use outrigger_api::envoy::config::route::v3::ScopedRouteConfiguration;
use outrigger_api::envoy::service::runtime::v3::Runtime as RuntimeLayer;
use outrigger_api::strict;
use outrigger_traffic::config::ConfigError;
use prost::Message;
use prost_types::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything of that sort that is known.
#[derive(Clone, Debug, Default)]
pub struct Ingredients {
    /// Runtime values.
    pub runtime: Runtime,
    /// Settings of extensions by their names.
    pub extensions: BTreeMap<String, Any>,
    /// Scopes by their names.
    pub scopes: BTreeMap<String, Arc<ScopedRouteConfiguration>>,
    /// Whether a first answer about scopes has come.
    pub scopes_known: bool,
}

/// One of them.
#[derive(Clone, Debug)]
pub enum Ingredient {
    /// Values of a runtime layer.
    Values(BTreeMap<String, runtime::Entry>),
    /// Settings of an extension.
    Extension(Any),
    /// A scope.
    Scope(Arc<ScopedRouteConfiguration>),
}

impl Ingredients {
    /// Takes one in.
    pub fn put(&mut self, name: &str, one: Ingredient) {
        match one {
            Ingredient::Values(values) => {
                self.runtime.replace(&LayerKind::Followed(name.to_owned()), &values);
            }
            Ingredient::Extension(any) => drop(self.extensions.insert(name.to_owned(), any)),
            Ingredient::Scope(scope) => drop(self.scopes.insert(name.to_owned(), scope)),
        }
    }

    /// Forgets one.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        match kind {
            Kind::Runtime => {
                self.runtime.replace(&LayerKind::Followed(name.to_owned()), &BTreeMap::new());
            }
            Kind::Extension => drop(self.extensions.remove(name)),
            Kind::Scope => drop(self.scopes.remove(name)),
            Kind::Cluster | Kind::Endpoints | Kind::Secret | Kind::Listener | Kind::RouteConfig => {}
        }
    }

    /// Whether this one has arrived.
    pub fn has(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Extension => self.extensions.contains_key(name),
            Kind::Scope => self.scopes_known,
            _ => true,
        }
    }
}

/// Reads one of these resources; gives its own name, too.
///
/// # Errors
/// Everything in it that is not understood. What settings of an extension mean is found out where they are used.
pub fn read(kind: Kind, bytes: &[u8]) -> Result<(String, Ingredient), Vec<ConfigError>> {
    let at = |name: &str| format!("{}/{name}", kind.word());
    let checked = strict::check_binary(kind.type_url(), bytes);
    let notices = checked.map_err(|problems| {
        problems.into_iter().map(|p| ConfigError::new("", p.path, p.reason)).collect::<Vec<_>>()
    })?;
    for notice in notices {
        tracing::info!(kind = kind.word(), %notice, "field has no effect");
    }
    let broken = |error: prost::DecodeError| vec![ConfigError::new("", "", error.to_string())];
    match kind {
        Kind::Runtime => {
            let message = RuntimeLayer::decode(bytes).map_err(broken)?;
            let values = runtime::values(&message.layer.unwrap_or_default()).map_err(|wrong| {
                let error =
                    |(key, reason)| ConfigError::new(at(&message.name), format!("layer.{key}"), reason);
                wrong.into_iter().map(error).collect::<Vec<_>>()
            })?;
            Ok((message.name, Ingredient::Values(values)))
        }
        Kind::Extension => {
            let message = TypedExtensionConfig::decode(bytes).map_err(broken)?;
            match message.typed_config {
                Some(any) => Ok((message.name, Ingredient::Extension(any))),
                None => Err(vec![ConfigError::new(at(&message.name), "typed_config", "is required")]),
            }
        }
        _ => {
            let message = ScopedRouteConfiguration::decode(bytes).map_err(broken)?;
            Ok((message.name.clone(), Ingredient::Scope(Arc::new(message))))
        }
    }
}
