//! `dynamic_resources`: where listeners, clusters and all that they name come from.

use crate::source::{FileSource, GrpcSource};
use crate::translate::At;
use crate::translate::source::{file, grpc};
use outrigger_api::envoy::config::bootstrap::v3::bootstrap::DynamicResources;
use outrigger_api::envoy::config::core::v3::config_source::ConfigSourceSpecifier as Source;
use outrigger_api::envoy::config::core::v3::{ApiConfigSource, ConfigSource};
use std::collections::BTreeSet;

/// Where dynamic resources come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// The aggregated stream.
    pub ads: Option<GrpcSource>,
    /// Listeners; `None`: only static ones.
    pub listeners: Option<DynamicSource>,
    /// Clusters; `None`: only static ones.
    pub clusters: Option<DynamicSource>,
}

/// Where one kind of resource comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DynamicSource {
    /// From the aggregated stream.
    Ads,
    /// From a stream of its own.
    Own(GrpcSource),
    /// From a file.
    File(FileSource),
}

/// The sources, each of which must be reached through one of the static `clusters`.
pub(super) fn dynamic(message: &DynamicResources, clusters: &BTreeSet<&str>, at: &At<'_>) -> Dynamic {
    let ads = message.ads_config.as_ref().and_then(|s| server(s, clusters, &at.field("ads_config")));
    let has_ads = message.ads_config.is_some();
    let source = |source: Option<&ConfigSource>, field: &str| {
        let at = at.field(field);
        match source?.config_source_specifier.as_ref() {
            Some(Source::Ads(_)) => {
                if !has_ads {
                    at.field("ads").refuse("needs `ads_config`");
                }
                Some(DynamicSource::Ads)
            }
            Some(Source::ApiConfigSource(own)) => {
                server(own, clusters, &at.field("api_config_source")).map(DynamicSource::Own)
            }
            Some(Source::Path(path)) => file(path, None, &at.field("path")).map(DynamicSource::File),
            Some(Source::PathConfigSource(message)) => {
                let at = at.field("path_config_source");
                let folder = message.watched_directory.as_ref().map(|folder| folder.path.as_str());
                file(&message.path, folder, &at.field("path")).map(DynamicSource::File)
            }
            Some(Source::Self_(_)) => {
                at.field("self").refuse("has no meaning in a bootstrap");
                None
            }
            None => {
                at.refuse("names no source");
                None
            }
        }
    };
    Dynamic {
        ads,
        listeners: source(message.lds_config.as_ref(), "lds_config"),
        clusters: source(message.cds_config.as_ref(), "cds_config"),
    }
}

fn server(message: &ApiConfigSource, clusters: &BTreeSet<&str>, at: &At<'_>) -> Option<GrpcSource> {
    let source = grpc(message, at)?;
    if !source.cluster.is_empty() && !clusters.contains(source.cluster.as_str()) {
        let at = at.item("grpc_services", 0);
        let at = at.field("envoy_grpc");
        at.field("cluster_name").refuse(format!("there is no static cluster `{}`", source.cluster));
    }
    Some(source)
}
