//! One xDS message into the config model.
//!
//! Nothing is dropped in silence: [`outrigger_api::strict`] refuses fields that we do not have, and what remains is
//! either expressed in [`outrigger_traffic::config`] or refused here, with the path of the field. Every problem of a
//! resource is reported at once. Defaults are Envoy's, and so are the rules on values (required fields, ranges) that
//! Envoy itself enforces; both are written where the field is translated.
//!
//! Reading order: `at` (where the translation stands) · [`files`] (what `filename` reads) · `value` (numbers, times,
//! texts) · `listener` (with `listener_filter`, `dns`) → `http_connection_manager` → `route` · `cluster` → `endpoint` · `tls`, `secret` · `filter`, `rbac`,
//! `access_log`, `trace`, `tcp_proxy`, `source`.

mod access_log;
mod at;
mod cluster;
mod dns;
mod endpoint;
mod extension;
pub mod files;
mod filter;
mod http_connection_manager;
mod listener;
mod listener_filter;
mod local_reply;
mod log_filter;
mod log_service;
mod metadata;
mod rbac;
mod route;
mod scoped;
mod secret;
mod service;
pub(crate) mod source;
mod subset;
mod tcp_proxy;
mod tls;
mod trace;
mod value;

pub(crate) use at::{At, Cx};
pub(crate) use endpoint::place;
pub(crate) use value::{positive, socket_address};

pub use route::after::{Previous, route_config_after};

use crate::ingredients::Ingredients;
use crate::source::Wanted;
use files::{Disk, FileReader};
use outrigger_api::envoy::config::cluster::v3::Cluster;
use outrigger_api::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_api::envoy::config::listener::v3::Listener;
use outrigger_api::envoy::config::route::v3::RouteConfiguration;
use outrigger_api::envoy::extensions::transport_sockets::tls::v3::Secret;
use outrigger_api::strict;
use outrigger_traffic::config::{self, ConfigError, Resource};
use prost::{Message, Name};
use std::cell::RefCell;
use std::sync::Arc;

/// Where a resource came from: what it may mean by "from there".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CameFrom {
    /// A file, or the aggregated stream.
    #[default]
    Aggregated,
    /// A stream or file that carries its kind alone, from which nothing else can be asked for.
    OwnStream,
}

/// What a translation stands in, beside the message.
pub struct Surroundings<'a> {
    /// Reads the files that it names.
    pub files: &'a dyn FileReader,
    /// Where the resource came from.
    pub came_from: CameFrom,
    /// What it takes its meaning from beside itself.
    pub ingredients: Arc<Ingredients>,
    /// Everything so far that was accepted and has no effect; the reader takes it out.
    pub notices: RefCell<Vec<ConfigError>>,
    /// Everything so far that is named and taken from somewhere else; the reader takes it out.
    pub wanted: RefCell<Vec<Wanted>>,
}

impl Default for Surroundings<'_> {
    fn default() -> Self {
        Self {
            files: &Disk,
            came_from: CameFrom::Aggregated,
            ingredients: Arc::default(),
            notices: RefCell::default(),
            wanted: RefCell::default(),
        }
    }
}

/// Translates the content of an `Any` that a control service sent.
///
/// *Errors*: an unknown type, unknown fields in any depth, and everything that the functions below refuse.
pub fn translate_any(type_url: &str, bytes: &[u8]) -> Result<Resource, Vec<ConfigError>> {
    translate_any_from(&Given::default(), type_url, bytes).map(|translated| translated.resource)
}

/// What is known of a resource beside its bytes.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Where it came from.
    pub came_from: CameFrom,
    /// What it takes its meaning from beside itself.
    pub ingredients: Arc<Ingredients>,
}

impl Given {
    fn surroundings(&self) -> Surroundings<'static> {
        Surroundings {
            came_from: self.came_from,
            ingredients: self.ingredients.clone(),
            ..Surroundings::default()
        }
    }
}

/// A resource, and what it takes from somewhere else.
#[derive(Clone, Debug)]
pub struct Translated {
    /// What it means.
    pub resource: Resource,
    /// What it names, with the source.
    pub wanted: Vec<Wanted>,
}

/// [`translate_any`], of a resource that came from there. What has no effect is logged.
///
/// *Errors*: as [`translate_any`].
pub fn translate_any_from(
    given: &Given,
    type_url: &str,
    bytes: &[u8],
) -> Result<Translated, Vec<ConfigError>> {
    let around = given.surroundings();
    let resource = translate_any_with(type_url, bytes, &around);
    for notice in around.notices.take() {
        ::tracing::info!(
            resource = notice.resource,
            field = notice.path,
            reason = notice.reason,
            "field has no effect"
        );
    }
    resource.map(|resource| Translated { resource, wanted: around.wanted.take() })
}

/// [`translate_any_from`], of a resource that replaces `previous`: of a route table only what changed is translated.
///
/// *Errors*: as [`translate_any`].
pub fn translate_any_after(
    given: &Given,
    type_url: &str,
    bytes: &[u8],
    previous: Option<Previous<'_>>,
) -> Result<Translated, Vec<ConfigError>> {
    let around = given.surroundings();
    let is_table = type_url.rsplit('/').next() == Some(RouteConfiguration::full_name().as_str());
    match previous.filter(|_| is_table).and_then(|previous| route_config_after(bytes, previous, &around)) {
        Some(table) => {
            Ok(Translated { resource: Resource::RouteConfig(table), wanted: around.wanted.take() })
        }
        None => translate_any_from(given, type_url, bytes),
    }
}

/// [`translate_any`], in these surroundings.
///
/// *Errors*: as [`translate_any`].
pub fn translate_any_with(
    type_url: &str,
    bytes: &[u8],
    around: &Surroundings<'_>,
) -> Result<Resource, Vec<ConfigError>> {
    let name = type_url.rsplit('/').next().unwrap_or(type_url);
    if name == Listener::full_name() {
        let message: Listener = checked("listener", type_url, bytes, around, |m: &Listener| m.name.clone())?;
        translate_listener_with(&message, around).map(Resource::Listener)
    } else if name == RouteConfiguration::full_name() {
        let message =
            checked("route_config", type_url, bytes, around, |m: &RouteConfiguration| m.name.clone())?;
        translate_route_config_with(&message, around).map(Resource::RouteConfig)
    } else if name == Cluster::full_name() {
        let message = checked("cluster", type_url, bytes, around, |m: &Cluster| m.name.clone())?;
        translate_cluster_with(&message, around).map(Resource::Cluster)
    } else if name == ClusterLoadAssignment::full_name() {
        let named = |m: &ClusterLoadAssignment| m.cluster_name.clone();
        let message = checked("endpoints", type_url, bytes, around, named)?;
        translate_endpoints(&message).map(Resource::Endpoints)
    } else if name == Secret::full_name() {
        let message = checked("secret", type_url, bytes, around, |m: &Secret| m.name.clone())?;
        translate_secret_with(&message, around).map(Resource::Secret)
    } else {
        Err(vec![ConfigError::new("", "", format!("`{name}` is not a kind of resource"))])
    }
}

/// Strict decoding, with the resource's own name in the errors.
fn checked<M: Message + Name + Default>(
    kind: &str,
    type_url: &str,
    bytes: &[u8],
    around: &Surroundings<'_>,
    name: impl Fn(&M) -> String,
) -> Result<M, Vec<ConfigError>> {
    let resource = || format!("{kind}/{}", M::decode(bytes).map(|m| name(&m)).unwrap_or_default());
    let problem = |p: strict::Problem| ConfigError::new(resource(), p.path, p.reason);
    let notices = strict::check_binary(type_url, bytes)
        .map_err(|problems| problems.into_iter().map(problem).collect::<Vec<_>>())?;
    around.notices.borrow_mut().extend(notices.into_iter().map(problem));
    strict::decode(bytes).map_err(|p| vec![problem(p)])
}

/// Runs one translation and gives its value, or everything that is wrong.
pub(crate) fn run<T>(
    resource: String,
    around: &Surroundings<'_>,
    translate: impl FnOnce(&At<'_>) -> T,
) -> Result<T, Vec<ConfigError>> {
    let cx = Cx::new(resource, around);
    let value = translate(&At::root(&cx));
    let errors = cx.into_errors();
    if errors.is_empty() { Ok(value) } else { Err(errors) }
}

/// A value that stands in after a refusal was noted: it never leaves [`run`].
fn required<T>(value: Option<T>) -> Result<T, Vec<ConfigError>> {
    value.ok_or_else(|| vec![ConfigError::new("", "", "the resource is empty")])
}

/// Translates a listener.
pub fn translate_listener(message: &Listener) -> Result<config::Listener, Vec<ConfigError>> {
    translate_listener_with(message, &Surroundings::default())
}

/// [`translate_listener`], in these surroundings.
pub fn translate_listener_with(
    message: &Listener,
    around: &Surroundings<'_>,
) -> Result<config::Listener, Vec<ConfigError>> {
    required(run(format!("listener/{}", message.name), around, |at| listener::listener(message, at))?)
}

/// Translates a route table.
pub fn translate_route_config(message: &RouteConfiguration) -> Result<config::RouteConfig, Vec<ConfigError>> {
    translate_route_config_with(message, &Surroundings::default())
}

/// [`translate_route_config`], in these surroundings.
pub fn translate_route_config_with(
    message: &RouteConfiguration,
    around: &Surroundings<'_>,
) -> Result<config::RouteConfig, Vec<ConfigError>> {
    run(format!("route_config/{}", message.name), around, |at| {
        if message.name.is_empty() {
            at.field("name").refuse("must not be empty");
        }
        route::route_config(message, false, at)
    })
}

/// Translates a cluster.
pub fn translate_cluster(message: &Cluster) -> Result<config::Cluster, Vec<ConfigError>> {
    translate_cluster_with(message, &Surroundings::default())
}

/// [`translate_cluster`], in these surroundings.
pub fn translate_cluster_with(
    message: &Cluster,
    around: &Surroundings<'_>,
) -> Result<config::Cluster, Vec<ConfigError>> {
    run(format!("cluster/{}", message.name), around, |at| cluster::cluster(message, at))
}

/// Translates the endpoints of an EDS cluster.
pub fn translate_endpoints(message: &ClusterLoadAssignment) -> Result<config::Endpoints, Vec<ConfigError>> {
    run(format!("endpoints/{}", message.cluster_name), &Surroundings::default(), |at| {
        endpoint::endpoints(message, endpoint::Names::Addresses, at)
    })
}

/// Translates a secret.
pub fn translate_secret(message: &Secret) -> Result<config::Secret, Vec<ConfigError>> {
    translate_secret_with(message, &Surroundings::default())
}

/// [`translate_secret`], in these surroundings.
pub fn translate_secret_with(
    message: &Secret,
    around: &Surroundings<'_>,
) -> Result<config::Secret, Vec<ConfigError>> {
    required(run(format!("secret/{}", message.name), around, |at| secret::secret(message, at))?)
}

#[cfg(test)]
mod tests;
