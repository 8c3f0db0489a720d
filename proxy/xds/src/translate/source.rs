//! Where a named resource is fetched from: the one stream of the bootstrap, which is all that a proxy needs.

use super::{At, CameFrom};
use outrigger_api::envoy::config::core::v3::ConfigSource;
use outrigger_api::envoy::config::core::v3::config_source::ConfigSourceSpecifier as Source;

/// Checks that a source means the aggregated stream.
pub(crate) fn aggregated(source: &ConfigSource, at: &At<'_>) {
    match source.config_source_specifier {
        Some(Source::Ads(_)) => {}
        // `self` is the server that this resource came from.
        Some(Source::Self_(_)) => match at.came_from() {
            CameFrom::Aggregated => {}
            CameFrom::OwnStream => {
                at.field("self").refuse("the stream that this came from carries no other kind; use `ads: {}`")
            }
        },
        Some(Source::ApiConfigSource(_)) => {
            at.field("api_config_source").refuse("only `ads` is supported outside the bootstrap");
        }
        None => at.refuse("names no source; use `ads: {}`"),
    }
}
