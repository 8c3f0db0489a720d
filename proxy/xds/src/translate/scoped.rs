//! `ScopedRoutes`.

use super::value::header_name;
use super::{At, route, source};
use crate::ads::Kind;
use crate::ads::kind::EVERY;
use outrigger_api::envoy::config::route::v3::ScopedRouteConfiguration;
use outrigger_api::envoy::config::route::v3::scoped_route_configuration::key::fragment::Type as Fragment;
use outrigger_api::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use outrigger_traffic::config::{KeyElement, KeyPart, Scope, ScopeTable, ScopedRoutes};
use proto::scoped_routes::ConfigSpecifier as From;
use proto::scoped_routes::scope_key_builder::fragment_builder as builder;

/// Scopes; `None` where there are none (noted).
pub(super) fn routes(message: &proto::ScopedRoutes, at: &At<'_>) -> Option<ScopedRoutes> {
    at.field("name").need_text(&message.name);
    let at_key = at.field("scope_key_builder");
    let built = at_key.need(message.scope_key_builder.as_ref())?;
    let parts = built.fragments.iter().enumerate();
    let key = parts.filter_map(|(i, part)| key_part(part, &at_key.item("fragments", i))).collect();
    let scopes = match at.need(message.config_specifier.as_ref())? {
        From::ScopedRouteConfigurationsList(list) => {
            let at = at.field("scoped_route_configurations_list");
            let scopes = list.scoped_route_configurations.iter().enumerate();
            scopes
                .filter_map(|(i, one)| scope(one, message, &at.item("scoped_route_configurations", i)))
                .collect()
        }
        From::ScopedRds(rds) => {
            let at = at.field("scoped_rds");
            let from = at.field("scoped_rds_config_source");
            if let Some(config_source) = from.need(rds.scoped_rds_config_source.as_ref()) {
                source::want(Kind::Scope, EVERY, config_source, &from);
            }
            let known = at.ingredients().scopes.iter();
            known.filter_map(|(name, one)| scope(one, message, &at.key("scopes", name))).collect()
        }
    };
    Some(ScopedRoutes { key, scopes })
}

fn key_part(
    message: &proto::scoped_routes::scope_key_builder::FragmentBuilder,
    at: &At<'_>,
) -> Option<KeyPart> {
    use builder::header_value_extractor::ExtractType as E;
    let builder::Type::HeaderValueExtractor(from) = at.need(message.r#type.as_ref())?;
    let at = at.field("header_value_extractor");
    let element = match at.need(from.extract_type.as_ref())? {
        E::Index(index) => {
            if from.element_separator.is_empty() && *index > 0 {
                at.field("index").refuse("must be 0 where there is no `element_separator`");
            }
            KeyElement::Index(*index)
        }
        E::Element(element) => {
            let at = at.field("element");
            at.field("separator").need_text(&element.separator);
            at.field("key").need_text(&element.key);
            KeyElement::Value { separator: element.separator.clone(), key: element.key.clone() }
        }
    };
    Some(KeyPart {
        header: header_name(&from.name, true, &at.field("name")),
        separator: from.element_separator.clone(),
        element,
    })
}

fn scope(message: &ScopedRouteConfiguration, routes: &proto::ScopedRoutes, at: &At<'_>) -> Option<Scope> {
    at.field("name").need_text(&message.name);
    let at_key = at.field("key");
    let fragments = &at_key.need(message.key.as_ref())?.fragments;
    let mut key = Vec::with_capacity(fragments.len());
    for (i, fragment) in fragments.iter().enumerate() {
        let Fragment::StringKey(text) = at_key.item("fragments", i).need(fragment.r#type.as_ref())?;
        key.push(text.clone());
    }
    let table = match (&message.route_configuration, message.route_configuration_name.as_str()) {
        (Some(table), "") => {
            ScopeTable::Inline(Box::new(route::route_config(table, true, &at.field("route_configuration"))))
        }
        (None, name) if !name.is_empty() => {
            let from = at.field("route_configuration_name");
            match &routes.rds_config_source {
                Some(config_source) => source::want(Kind::RouteConfig, name, config_source, &from),
                None => from.refuse("needs `rds_config_source`"),
            }
            ScopeTable::Named(name.to_owned())
        }
        _ => {
            at.refuse("either `route_configuration` or `route_configuration_name` is required");
            return None;
        }
    };
    Some(Scope { name: message.name.clone(), key, table })
}
