//! The file a proxy starts with: Envoy's Bootstrap, in YAML or JSON.
//!
//! Static resources are translated like those of a control service, with the same refusals; what they refer to on disk is
//! read here, so that `--mode validate` finds a missing file. Every problem is reported, with its path in the file and,
//! for YAML, its line. Reading order: [`load_bootstrap`] · `dynamic` (where the rest comes from) · `overload` · `runtime`.

mod dynamic;
mod overload;
mod runtime;

pub use crate::source::GrpcSource;
pub use dynamic::{Dynamic, DynamicSource};
pub use outrigger_api::strict::Format;
pub use runtime::tree as runtime_tree;

use crate::ads::Kind;
use crate::feed::Remake;
use crate::ingredients::Ingredients;
use crate::runtime::Runtime;
use crate::source::Wanted;
use crate::translate::files::{Disk, FileReader};
use crate::translate::{self, Surroundings, place, run};
use outrigger_api::envoy::config::bootstrap::v3 as proto;
use outrigger_api::envoy::config::core::v3::Node;
use outrigger_api::strict::{self, Lines, Problem};
use outrigger_traffic::config::{Config, ConfigError, LocalCluster, OverloadManager};
use prost::Message;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// A bootstrap that is understood in every part.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    /// Who this proxy says it is; empty where the file says nothing.
    pub node: Node,
    /// Where the admin server listens; `None`: the proxy's default.
    pub admin: Option<SocketAddr>,
    /// The static resources.
    pub config: Config,
    /// Where the other resources come from.
    pub dynamic: Dynamic,
    /// What the static resources name, with its source.
    pub wanted: Vec<Wanted>,
    /// What is refused when memory runs out.
    pub overload: OverloadManager,
    /// Runtime values.
    pub runtime: Runtime,
    /// The static resources as they were written.
    source: Arc<proto::bootstrap::StaticResources>,
    /// Fields that were given and have no effect, with the reason why that is harmless.
    pub notices: Vec<ConfigError>,
}

impl Bootstrap {
    /// Tells the configuration where the node is; again after the node was changed.
    pub fn locate(&mut self) {
        if let Some(local) = &mut self.config.local_cluster {
            local.locality = self.node.locality.as_ref().map(place);
        }
    }
}

/// Reads a bootstrap.
///
/// *Errors*: every syntax error, unknown or unsupported field, missing file and impossible value, in the file's order.
pub fn load_bootstrap(text: &str, format: Format) -> Result<Bootstrap, Vec<ConfigError>> {
    load_bootstrap_with(Some((text, format)), None, &Disk)
}

/// Reads a bootstrap file and lays a YAML text (`--config-yaml`) over it as protobuf merges messages: single values
/// replace, lists are appended. Files that it names are read through `files`.
///
/// *Errors*: as [`load_bootstrap`].
pub fn load_bootstrap_with(
    file: Option<(&str, Format)>,
    overlay: Option<&str>,
    files: &dyn FileReader,
) -> Result<Bootstrap, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let mut notices = Vec::new();
    let mut bytes = Vec::new();
    let mut lines = Lines::default();
    let parts = file.into_iter().chain(overlay.map(|text| (text, Format::Yaml)));
    for (text, format) in parts {
        let (checked, problems) = strict::read_text::<proto::Bootstrap>(text, format);
        errors.extend(problems.into_iter().map(error));
        let Some(mut checked) = checked else { return Err(errors) };
        notices.extend(checked.notices.drain(..).map(error));
        // Paths of merged lists are not those of either text.
        lines = if overlay.is_some() { Lines::default() } else { std::mem::take(&mut checked.lines) };
        match checked.into_typed::<proto::Bootstrap>() {
            Ok(message) => message.encode_raw(&mut bytes),
            Err(problem) => {
                errors.push(error(problem));
                return Err(errors);
            }
        }
    }
    // Concatenated encodings decode to the merged message (protobuf encoding: last one wins, lists are appended).
    let message = match proto::Bootstrap::decode(bytes.as_slice()) {
        Ok(message) => message,
        Err(error) => return Err(vec![ConfigError::new("", "", format!("cannot be merged: {error}"))]),
    };
    // What was not understood above is missing below: a complaint about that place would say the same in other words.
    let known: Vec<String> = errors.iter().map(|e| e.path.clone()).collect();
    let around = Surroundings { files, ..Surroundings::default() };
    let mut loader = Loader { around: &around, lines, errors: Vec::new(), notices };
    let runtime = loader.runtime(&message);
    let around = Surroundings {
        files,
        ingredients: Arc::new(Ingredients { runtime, ..Ingredients::default() }),
        wanted: around.wanted.take().into(),
        ..Surroundings::default()
    };
    let Loader { lines, errors: first, notices, .. } = loader;
    let mut loader = Loader { around: &around, lines, errors: first, notices };
    let bootstrap = loader.bootstrap(message);
    let says_new =
        |e: &ConfigError| !known.iter().any(|path| path.starts_with(&e.path) || e.path.starts_with(path));
    errors.extend(loader.errors.drain(..).filter(says_new));
    loader.errors = errors;
    if loader.errors.is_empty() {
        Ok(Bootstrap { notices: loader.notices, ..bootstrap })
    } else {
        Err(loader.errors)
    }
}

impl Bootstrap {
    /// Makes the static resources anew when what they take their meaning from changes.
    pub fn remake(&self) -> Remake {
        // Runtime layers are named by the file as a whole, not by its resources.
        let layers: Vec<Wanted> =
            self.wanted.iter().filter(|one| one.kind == Kind::Runtime).cloned().collect();
        let source = self.source.clone();
        Box::new(move |ingredients| {
            let around =
                Surroundings { ingredients: Arc::new(ingredients.clone()), ..Surroundings::default() };
            let mut loader =
                Loader { around: &around, lines: Lines::default(), errors: Vec::new(), notices: Vec::new() };
            let config = loader.static_resources(&source);
            if !loader.errors.is_empty() {
                return Err(loader.errors);
            }
            Ok((config, around.wanted.take().into_iter().chain(layers.iter().cloned()).collect()))
        })
    }
}

fn error(problem: Problem) -> ConfigError {
    ConfigError::new("", problem.path, with_line(problem.reason, problem.line))
}

fn with_line(reason: String, line: Option<u64>) -> String {
    match line {
        Some(line) => format!("{reason} (line {line})"),
        None => reason,
    }
}

struct Loader<'a> {
    around: &'a Surroundings<'a>,
    lines: Lines,
    errors: Vec<ConfigError>,
    notices: Vec<ConfigError>,
}

impl Loader<'_> {
    /// The runtime values come first: everything else is read with them.
    fn runtime(&mut self, message: &proto::Bootstrap) -> Runtime {
        let Some(layers) = &message.layered_runtime else { return Runtime::default() };
        let cluster = message.node.as_ref().map_or("", |node| node.cluster.as_str());
        let found = run(String::new(), self.around, |at| runtime::runtime(layers, cluster, at));
        let (runtime, harmless) = self.take("layered_runtime", found).unwrap_or_default();
        self.notices.extend(harmless);
        runtime
    }

    fn bootstrap(&mut self, message: proto::Bootstrap) -> Bootstrap {
        let source = message.static_resources.clone().unwrap_or_default();
        let mut config =
            message.static_resources.as_ref().map(|s| self.static_resources(s)).unwrap_or_default();
        let admin = message.admin.as_ref().and_then(|admin| {
            // An admin section without an address keeps Envoy's admin server off; ours keeps its default.
            admin.address.as_ref()?;
            let found = run(String::new(), self.around, |at| {
                let at = at.field("address");
                translate::socket_address(admin.address.as_ref(), &at)
            });
            self.take("admin", found).flatten()
        });
        let clusters: BTreeSet<&str> = config.clusters.iter().map(|c| c.name.as_str()).collect();
        let local = message.cluster_manager.as_ref().map(|manager| &manager.local_cluster_name);
        if let Some(name) = local.filter(|name| !name.is_empty()) {
            if !clusters.contains(name.as_str()) {
                let path = "cluster_manager.local_cluster_name".to_owned();
                self.errors.push(ConfigError::new("", path, "is not among the static clusters"));
            }
            config.local_cluster = Some(LocalCluster { name: name.clone(), locality: None });
        }
        let dynamic = message.dynamic_resources.as_ref().and_then(|d| {
            let found = run(String::new(), self.around, |at| dynamic::dynamic(d, &clusters, at));
            self.take("dynamic_resources", found)
        });
        let overload = message.overload_manager.as_ref().and_then(|manager| {
            let found = run(String::new(), self.around, |at| overload::overload(manager, at));
            self.take("overload_manager", found)
        });
        let mut bootstrap = Bootstrap {
            node: message.node.unwrap_or_default(),
            admin,
            config,
            dynamic: dynamic.unwrap_or_default(),
            wanted: self.around.wanted.take(),
            overload: overload.unwrap_or_default(),
            runtime: self.around.ingredients.runtime.clone(),
            source: Arc::new(source),
            notices: Vec::new(),
        };
        bootstrap.locate();
        bootstrap
    }

    fn static_resources(&mut self, message: &proto::bootstrap::StaticResources) -> Config {
        let mut config = Config::default();
        for (i, listener) in message.listeners.iter().enumerate() {
            let found = translate::translate_listener_with(listener, self.around);
            config.listeners.extend(self.take(&format!("static_resources.listeners[{i}]"), found));
        }
        for (i, cluster) in message.clusters.iter().enumerate() {
            let found = translate::translate_cluster_with(cluster, self.around);
            config.clusters.extend(self.take(&format!("static_resources.clusters[{i}]"), found));
        }
        for (i, secret) in message.secrets.iter().enumerate() {
            let found = translate::translate_secret_with(secret, self.around);
            config.secrets.extend(self.take(&format!("static_resources.secrets[{i}]"), found));
        }
        self.unique("listeners", config.listeners.iter().map(|l| l.name.as_str()));
        self.unique("clusters", config.clusters.iter().map(|c| c.name.as_str()));
        self.unique("secrets", config.secrets.iter().map(|s| s.name.as_str()));
        config
    }

    fn unique<'n>(&mut self, kind: &str, names: impl Iterator<Item = &'n str>) {
        let mut seen = BTreeSet::new();
        for name in names.filter(|name| !seen.insert(*name)) {
            let path = format!("static_resources.{kind}");
            self.errors.push(ConfigError::new("", path, format!("`{name}` is given twice")));
        }
    }

    /// The value, or its errors with the path that they have in the file; notices likewise.
    fn take<T>(&mut self, base: &str, found: Result<T, Vec<ConfigError>>) -> Option<T> {
        for notice in self.around.notices.take() {
            self.notices.push(self.placed(base, notice));
        }
        match found {
            Ok(value) => Some(value),
            Err(errors) => {
                for error in errors {
                    self.errors.push(self.placed(base, error));
                }
                None
            }
        }
    }

    fn placed(&self, base: &str, error: ConfigError) -> ConfigError {
        let path = match error.path.as_str() {
            "" => base.to_owned(),
            path => format!("{base}.{path}"),
        };
        let reason = with_line(error.reason, self.lines.find(&path));
        ConfigError::new(error.resource, path, reason)
    }
}

#[cfg(test)]
mod tests;
