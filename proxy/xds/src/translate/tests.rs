//! Resources as YAML, translated: what comes out, and what is refused.

use super::files::FileReader;
use super::{
    CameFrom, Given, Surroundings, translate_any, translate_any_from, translate_cluster, translate_endpoints,
    translate_listener, translate_listener_with, translate_route_config, translate_route_config_with,
    translate_secret,
};
use outrigger_api::strict::{Format, from_text};
use outrigger_traffic::config::{self, ConfigError};
use prost::{Message, Name};
use std::io;

mod balancing;
mod capture;
mod clusters;
mod listeners;
mod routes;
mod session;

/// The message that a YAML text says.
fn message<M: Message + Name + Default>(text: &str) -> M {
    match from_text::<M>(text, Format::Yaml) {
        Ok(checked) => checked.into_typed().expect("typed"),
        Err(problems) => panic!("{problems:#?}\n{text}"),
    }
}

/// Refusals as texts, without the resource.
fn reasons<T: std::fmt::Debug>(found: Result<T, Vec<ConfigError>>) -> Vec<String> {
    let errors = match found {
        Ok(value) => panic!("accepted: {value:#?}"),
        Err(errors) => errors,
    };
    errors
        .into_iter()
        .map(|e| if e.path.is_empty() { e.reason } else { format!("{}: {}", e.path, e.reason) })
        .collect()
}

#[test]
fn any_of_each_kind_is_translated_and_named() {
    use outrigger_api::any;
    use outrigger_api::envoy::config::cluster::v3::Cluster;
    use outrigger_api::envoy::config::endpoint::v3::ClusterLoadAssignment;
    use outrigger_api::envoy::config::listener::v3::Listener;
    use outrigger_api::envoy::config::route::v3::RouteConfiguration;
    use outrigger_api::envoy::extensions::transport_sockets::tls::v3::Secret;
    let listener: Listener = message(listeners::PLAIN);
    let cluster: Cluster = message("name: c");
    let routes: RouteConfiguration = message("name: r");
    let endpoints: ClusterLoadAssignment = message("cluster_name: e");
    let secret: Secret = message("{name: s, validation_context: {trusted_ca: {inline_string: PEM}}}");
    for (any, name) in [
        (any(&listener), "in"),
        (any(&cluster), "c"),
        (any(&routes), "r"),
        (any(&endpoints), "e"),
        (any(&secret), "s"),
    ] {
        let resource = translate_any(&any.type_url, &any.value).expect("accepted");
        assert_eq!(resource.name(), name);
    }
    let bad: Cluster = message("{name: c, connect_timeout: 0s}");
    let any = any(&bad);
    let errors = translate_any(&any.type_url, &any.value).expect_err("refused");
    assert_eq!(errors[0].to_string(), "cluster/c: connect_timeout: must be greater than 0s");
}

#[test]
fn any_that_is_no_resource_is_refused_by_name() {
    let errors = translate_any("type.googleapis.com/envoy.config.core.v3.Node", &[]).expect_err("refused");
    assert_eq!(errors[0].reason, "`envoy.config.core.v3.Node` is not a kind of resource");
    // Field 42 (lrs_server) of a cluster, an empty message.
    let errors = translate_any(
        "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        &[0x0a, 0x01, b'c', 0xd2, 0x02, 0x00],
    )
    .expect_err("refused");
    assert_eq!(
        errors[0].to_string(),
        "cluster/c: lrs_server: not supported by Outrigger (envoy.config.cluster.v3.Cluster.lrs_server, #42)"
    );
}

#[test]
fn secrets_need_a_name_and_content() {
    let secret = |text: &str| translate_secret(&message(text));
    assert_eq!(reasons(secret("name: s")), ["`tls_certificate` or `validation_context` is required"]);
    assert_eq!(
        reasons(secret("{tls_certificate: {certificate_chain: {inline_string: a}}}")),
        ["name: must not be empty", "tls_certificate.private_key: is required"]
    );
    let found =
        secret("{name: s, tls_certificate: {certificate_chain: {inline_bytes: QQ==}, private_key: {inline_string: k}}}")
            .expect("accepted");
    let config::SecretValue::Certificate(certificate) = found.value else { panic!("certificate") };
    assert_eq!((certificate.chain_pem.as_str(), certificate.key_pem.as_str()), ("A", "k"));
}

#[test]
fn same_server_means_the_aggregated_stream_only_where_there_is_one() {
    use outrigger_api::any;
    use outrigger_api::envoy::config::cluster::v3::Cluster;
    let cluster: Cluster = message("{name: c, type: EDS, eds_cluster_config: {eds_config: {self: {}}}}");
    let any = any(&cluster);
    translate_any_from(&Given::default(), &any.type_url, &any.value).expect("accepted");
    let own = Given { came_from: CameFrom::OwnStream, ..Given::default() };
    let refused = reasons(translate_any_from(&own, &any.type_url, &any.value));
    assert_eq!(
        refused,
        ["eds_cluster_config.eds_config.self: what this came from carries no other kind; use `ads: {}`"]
    );
}
