//! Runtime values, settings of extensions and scopes: they arrive apart, and what names them follows.

mod support;

use outrigger_api::envoy::config::listener::v3::Listener;
use outrigger_api::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use outrigger_traffic::config::{
    Config, FilterConfig, Fraction, HttpConnectionManager, RouteSource, ScopeTable, Terminal,
};
use outrigger_xds::ads::Kind;
use outrigger_xds::ads::session::Variant;
use outrigger_xds::bootstrap::{Format, load_bootstrap};
use outrigger_xds::feed::Feed;
use outrigger_xds::feed::links::LinkPlan;
use outrigger_xds::ingredients::Ingredients;
use std::sync::Arc;
use std::time::Instant;
use support::{Bed, Recorder, Sotw, url, yaml};

fn manager(config: &Config) -> &HttpConnectionManager {
    match &config.listeners[0].filter_chains[0].terminal {
        Terminal::Http(http) => http,
        Terminal::Tcp(_) => panic!("HTTP"),
    }
}

fn listener(routes: &str, filters: &str) -> Listener {
    yaml(&format!(
        "name: in
address: {{socket_address: {{address: 127.0.0.1, port_value: 1000}}}}
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: in
      {routes}
      http_filters:
{filters}
      - name: envoy.filters.http.router
        typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"
    ))
}

/// Answers with one resource, written as YAML with its type.
async fn send(stream: &Sotw, nonce: &str, kind: Kind, text: &str) {
    let any: prost_types::Any =
        yaml::<DiscoveryResponse>(&format!("resources: [{text}]")).resources.remove(0);
    let response = DiscoveryResponse {
        version_info: nonce.into(),
        type_url: kind.type_url().into(),
        nonce: nonce.into(),
        resources: vec![any],
        ..DiscoveryResponse::default()
    };
    stream.respond(response).await;
}

/// The next request about a kind, past those about others.
async fn about(stream: &mut Sotw, kind: Kind) -> DiscoveryRequest {
    loop {
        let request = stream.request().await;
        if request.type_url == kind.type_url() {
            return request;
        }
    }
}

const EXTENSION: &str =
    "'@type': type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig, name: later, typed_config";

#[tokio::test]
async fn filter_follows_its_settings() {
    let mut bed = Bed::start_with(vec![LinkPlan::everything(Variant::StateOfTheWorld)], None).await;
    let mut ads = bed.sotw_stream().await;
    let found = listener(
        "route_config: {name: r}",
        "      - name: later
        config_discovery:
          config_source: {ads: {}}
          type_urls: [type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors]",
    );
    let response = DiscoveryResponse {
        type_url: url::<Listener>(),
        nonce: "l1".into(),
        resources: vec![outrigger_api::any(&found)],
        ..DiscoveryResponse::default()
    };
    ads.respond(response).await;
    let asked = about(&mut ads, Kind::Extension).await;
    assert_eq!(asked.resource_names, ["later"]);
    assert!(bed.recorder.configs.lock().unwrap().last().is_none_or(|c| c.listeners.is_empty()), "it waits");
    let other = "{'@type': type.googleapis.com/envoy.extensions.filters.http.csrf.v3.CsrfPolicy}";
    send(&ads, "e1", Kind::Extension, &format!("{{{EXTENSION}: {other}}}")).await;
    let refused = about(&mut ads, Kind::Extension).await.error_detail.expect("a NACK").message;
    assert!(refused.contains("is not among `type_urls`"), "{refused}");
    let right = "{'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}";
    send(&ads, "e2", Kind::Extension, &format!("{{{EXTENSION}: {right}}}")).await;
    let accepted = about(&mut ads, Kind::Extension).await;
    assert_eq!((accepted.error_detail, accepted.version_info.as_str()), (None, "e2"));
    let config = bed.recorder.until("a listener", |c| !c.listeners.is_empty()).await;
    assert_eq!(manager(&config).http_filters[0].config, FilterConfig::Cors);
}

#[tokio::test]
async fn scopes_bring_their_tables() {
    let mut bed = Bed::start_with(vec![LinkPlan::everything(Variant::StateOfTheWorld)], None).await;
    let mut ads = bed.sotw_stream().await;
    let routes = "scoped_routes:
        name: s
        scope_key_builder: {fragments: [{header_value_extractor: {name: X-Scope, index: 0}}]}
        rds_config_source: {ads: {}}
        scoped_rds: {scoped_rds_config_source: {ads: {}}}";
    let response = DiscoveryResponse {
        type_url: url::<Listener>(),
        nonce: "l1".into(),
        resources: vec![outrigger_api::any(&listener(routes, ""))],
        ..DiscoveryResponse::default()
    };
    ads.respond(response).await;
    let asked = about(&mut ads, Kind::Scope).await;
    assert!(asked.resource_names.is_empty(), "all of them: {asked:?}");
    let scope = "{'@type': type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration, name: one, route_configuration_name: table, key: {fragments: [{string_key: a}]}}";
    send(&ads, "s1", Kind::Scope, scope).await;
    assert_eq!(about(&mut ads, Kind::RouteConfig).await.resource_names, ["table"]);
    let table = "{'@type': type.googleapis.com/envoy.config.route.v3.RouteConfiguration, name: table}";
    send(&ads, "r1", Kind::RouteConfig, table).await;
    let config = bed.recorder.until("a listener", |c| !c.listeners.is_empty()).await;
    let RouteSource::Scoped(scoped) = &manager(&config).routes else { panic!("scoped") };
    assert_eq!(scoped.key[0].header, "x-scope");
    assert_eq!(scoped.scopes[0].key, ["a"]);
    assert_eq!(scoped.scopes[0].table, ScopeTable::Named("table".into()));
}

const RUNTIME: &str = "
layered_runtime:
  layers:
  - {name: file, static_layer: {share: 10}}
  - {name: served, rtds_layer: {name: values, rtds_config: {ads: {}}}}
  - {name: admin, admin_layer: {}}
dynamic_resources: {ads_config: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: c}}]}}
static_resources:
  clusters: [{name: c, type: STATIC}]
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 1000}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config:
            virtual_hosts:
            - name: v
              domains: ['*']
              routes:
              - match: {prefix: /, runtime_fraction: {runtime_key: share, default_value: {numerator: 100}}}
                route: {cluster: c}
";

fn fraction(config: &Config) -> Option<Fraction> {
    let RouteSource::Inline(table) = &manager(config).routes else { panic!("inline") };
    table.virtual_hosts[0].routes[0].matches.fraction
}

#[tokio::test]
async fn runtime_values_change_what_names_them() {
    let loaded = load_bootstrap(RUNTIME, Format::Yaml).unwrap();
    let recorder = Arc::new(Recorder::default());
    let plans = vec![LinkPlan::everything(Variant::Delta)];
    let ingredients = Ingredients { runtime: loaded.runtime.clone(), ..Ingredients::default() };
    let mut feed = Feed::with_links(plans, loaded.config.clone(), recorder.clone(), None)
        .naming(loaded.wanted.clone())
        .remaking(loaded.remake(), ingredients);
    feed.start(Instant::now()).unwrap();
    let now = || fraction(recorder.configs.lock().unwrap().last().unwrap());
    assert_eq!(now(), Some(Fraction::from_percent(10)));
    let asked = feed.connected(Default::default());
    let runtime = asked.iter().find(|r| r.kind == Some(Kind::Runtime)).expect("it is asked for");
    assert_eq!(runtime.subscribe, ["values"]);
    feed.change_runtime(Instant::now(), |r| r.modify(&[("share".into(), "55".into())])).unwrap();
    assert_eq!(now(), Some(Fraction::from_percent(55)));
    feed.change_runtime(Instant::now(), |r| r.modify(&[("share".into(), String::new())])).unwrap();
    assert_eq!(now(), Some(Fraction::from_percent(10)));
    let refused =
        feed.change_runtime(Instant::now(), |r| r.modify(&[("upstream.use_retry".into(), "1".into())]));
    assert!(refused.unwrap_err()[0].contains("not supported"));
}
