//! Filters whose settings come from a control service (ECDS).

use super::{At, filter, source};
use crate::ads::Kind;
use crate::source::Wanted;
use outrigger_api::envoy::config::core::v3::ExtensionConfigSource;
use outrigger_traffic::config::FilterConfig;
use prost_types::Any;
use std::time::Duration;

/// The filter of the settings that arrived last; else of the default; else one that answers in its place.
pub(super) fn discovered(name: &str, message: &ExtensionConfigSource, at: &At<'_>) -> FilterConfig {
    let from = at.field("config_source");
    if let Some(config_source) = from.need(message.config_source.as_ref()) {
        source::want(Kind::Extension, name, config_source, &from);
    }
    if message.type_urls.is_empty() {
        at.field("type_urls").refuse("at least one is required");
    }
    let default = message.default_config.as_ref().map(|any| (any, at.field("default_config")));
    if let Some((any, at)) = &default {
        allowed(any, &message.type_urls, at);
    }
    if message.apply_default_config_without_warming {
        if default.is_none() {
            at.field("apply_default_config_without_warming").refuse("needs `default_config`");
        }
        // Nobody waits for it.
        let (kind, name) = (Kind::Extension, name.to_owned());
        at.hurry(|wanted: &Wanted| wanted.kind == kind && wanted.name == name, Duration::ZERO);
    }
    let found = match (at.ingredients().extensions.get(name), &default) {
        (Some(any), _) => {
            let at = at.field("config_source");
            allowed(any, &message.type_urls, &at);
            filter::filter(any, &at)
        }
        (None, Some((any, at))) => filter::filter(any, at),
        (None, None) => None,
    };
    found.unwrap_or(FilterConfig::Missing)
}

fn allowed(any: &Any, type_urls: &[String], at: &At<'_>) {
    let name = |url: &str| url.rsplit('/').next().unwrap_or_default().to_owned();
    let is = name(&any.type_url);
    if !type_urls.iter().any(|url| name(url) == is) {
        at.refuse(format!("the type `{is}` is not among `type_urls`"));
    }
}
