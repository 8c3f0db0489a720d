//! Where a named resource is fetched from: the aggregated stream, a stream of its own, or a file.

use super::{At, CameFrom, positive, value};
use crate::ads::Kind;
use crate::ads::backoff::Bounds;
use crate::source::{FETCH_TIMEOUT, FileSource, GrpcSource, Source, Wanted};
use outrigger_api::envoy::config::core::v3::api_config_source::ApiType;
use outrigger_api::envoy::config::core::v3::config_source::ConfigSourceSpecifier as Specifier;
use outrigger_api::envoy::config::core::v3::grpc_service::TargetSpecifier;
use outrigger_api::envoy::config::core::v3::{ApiConfigSource, BackoffStrategy, ConfigSource};

/// The longest wait between streams, in first waits, where none is given.
const MAX_INTERVAL_FACTOR: u32 = 10;

/// Notes that a resource of this kind and name is to be taken from a source.
pub(crate) fn want(kind: Kind, name: &str, source: &ConfigSource, at: &At<'_>) {
    let fetch_timeout = match &source.initial_fetch_timeout {
        None => Some(FETCH_TIMEOUT),
        Some(time) => {
            value::duration(time, &at.field("initial_fetch_timeout")).filter(|time| !time.is_zero())
        }
    };
    let from = match &source.config_source_specifier {
        Some(Specifier::Ads(_)) => Some(Source::Aggregated),
        // `self` is the server that this resource came from.
        Some(Specifier::Self_(_)) => match at.came_from() {
            CameFrom::Aggregated => Some(Source::Aggregated),
            CameFrom::OwnStream => {
                at.field("self").refuse("what this came from carries no other kind; use `ads: {}`");
                None
            }
        },
        Some(Specifier::ApiConfigSource(own)) => grpc(own, &at.field("api_config_source")).map(Source::Own),
        Some(Specifier::Path(path)) => file(path, None, &at.field("path")).map(Source::File),
        Some(Specifier::PathConfigSource(message)) => {
            let at = at.field("path_config_source");
            let folder = message.watched_directory.as_ref().map(|folder| folder.path.as_str());
            if folder == Some("") {
                at.field("watched_directory").field("path").refuse("must not be empty");
            }
            file(&message.path, folder, &at.field("path")).map(Source::File)
        }
        None => {
            at.refuse("names no source; use `ads: {}`");
            None
        }
    };
    if let Some(source) = from {
        at.want(Wanted { kind, name: name.to_owned(), source, fetch_timeout });
    }
}

/// A file, which must be there: Envoy refuses a path that does not exist, too.
pub(crate) fn file(path: &str, folder: Option<&str>, at: &At<'_>) -> Option<FileSource> {
    at.need_text(path);
    let known = [".yaml", ".yml", ".json", ".pb"].iter().any(|end| path.ends_with(end));
    if !path.is_empty() && !known {
        at.refuse("must end in .yaml, .yml, .json or .pb");
        return None;
    }
    if let Err(error) = at.files().read(path) {
        at.refuse(format!("cannot read `{path}`: {error}"));
        return None;
    }
    Some(FileSource { path: path.to_owned(), watched_directory: folder.map(str::to_owned) })
}

/// A management server that is spoken to by gRPC. That its cluster is there is checked where the clusters are known.
pub(crate) fn grpc(message: &ApiConfigSource, at: &At<'_>) -> Option<GrpcSource> {
    let delta = match ApiType::try_from(message.api_type) {
        Ok(ApiType::Grpc) => Some(false),
        Ok(ApiType::DeltaGrpc) => Some(true),
        Ok(ApiType::AggregatedGrpc | ApiType::AggregatedDeltaGrpc) => {
            at.field("api_type").refuse("needs xdstp names, which are not supported; use GRPC or DELTA_GRPC");
            None
        }
        Ok(ApiType::DeprecatedAndUnavailableDoNotUse) | Err(_) => {
            at.field("api_type").refuse("must be GRPC or DELTA_GRPC");
            None
        }
    };
    let service = match message.grpc_services.as_slice() {
        [service] => service,
        services => {
            at.field("grpc_services").refuse(format!("exactly one is supported, found {}", services.len()));
            return None;
        }
    };
    let at = at.item("grpc_services", 0);
    let mut metadata = Vec::new();
    for (i, header) in service.initial_metadata.iter().enumerate() {
        let at = at.item("initial_metadata", i);
        if !header.raw_value.is_empty() {
            at.field("raw_value").refuse("is not supported");
        }
        at.field("key").need_text(&header.key);
        metadata.push((header.key.to_ascii_lowercase(), header.value.clone()));
    }
    let TargetSpecifier::EnvoyGrpc(target) = at.need(service.target_specifier.as_ref())?;
    if service.timeout.is_some() {
        at.field("timeout").notice("configuration streams have no time limit");
    }
    let at = at.field("envoy_grpc");
    if target.retry_policy.as_ref().is_some_and(|policy| policy.num_retries.is_some()) {
        let at = at.field("retry_policy");
        at.field("num_retries").notice("streams are opened again for as long as the proxy runs");
    }
    let retry = target.retry_policy.as_ref().and_then(|policy| policy.retry_back_off.as_ref());
    let backoff = retry.map(|given| back_off(given, &at.field("retry_policy").field("retry_back_off")));
    at.field("cluster_name").need_text(&target.cluster_name);
    Some(GrpcSource {
        delta: delta.unwrap_or(false),
        cluster: target.cluster_name.clone(),
        authority: target.authority.clone(),
        metadata,
        backoff: backoff.unwrap_or_default(),
        // The aggregated and the delta protocol ask for the node in the first request only.
        node_once: message.set_node_on_first_message_only,
    })
}

/// Where only the first wait is given, the longest is ten times as long, as in Envoy.
fn back_off(given: &BackoffStrategy, at: &At<'_>) -> Bounds {
    let at_base = at.field("base_interval");
    let Some(base) = at_base.need(given.base_interval.as_ref()).and_then(|b| positive(b, &at_base)) else {
        return Bounds::default();
    };
    let at_max = at.field("max_interval");
    let max = match &given.max_interval {
        None => base.saturating_mul(MAX_INTERVAL_FACTOR),
        Some(max) => positive(max, &at_max).unwrap_or(base),
    };
    if max < base {
        at_max.refuse("must not be below `base_interval`");
    }
    Bounds { base, max }
}
