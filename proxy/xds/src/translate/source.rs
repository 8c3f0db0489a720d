//! Where a named resource is fetched from: the one stream of the bootstrap, which is all that a proxy needs.

use super::At;
use outrigger_api::envoy::config::core::v3::ConfigSource;
use outrigger_api::envoy::config::core::v3::config_source::ConfigSourceSpecifier as Source;

/// Checks that a source means the aggregated stream.
pub(crate) fn aggregated(source: &ConfigSource, at: &At<'_>) {
    match source.config_source_specifier {
        // `self` is the server that this resource came from, which is the aggregated stream.
        Some(Source::Ads(_) | Source::Self_(_)) => {}
        Some(Source::ApiConfigSource(_)) => {
            at.field("api_config_source").refuse("only `ads` is supported outside the bootstrap");
        }
        None => at.refuse("names no source; use `ads: {}`"),
    }
}
