use super::{Checked, Format, Problem, from_binary, from_text};
use crate::any;
use crate::envoy::config::bootstrap::v3::Bootstrap;
use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter};
use crate::envoy::config::route::v3::RouteConfiguration;
use crate::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use prost::Message;

fn yaml<M: prost::Name>(text: &str) -> Result<Checked, Vec<Problem>> {
    from_text::<M>(text, Format::Yaml)
}

fn problems<M: prost::Name>(text: &str) -> Vec<String> {
    yaml::<M>(text).expect_err("should be refused").iter().map(ToString::to_string).collect()
}

#[test]
fn yaml_and_json_give_the_same_message() {
    let a = yaml::<Cluster>(
        "name: a\nconnect_timeout: 0.25s\nlb_policy: LEAST_REQUEST\nper_connection_buffer_limit_bytes: 32768\n",
    );
    let b = from_text::<Cluster>(
        r#"{"name":"a","connectTimeout":"0.25s","lbPolicy":1,"perConnectionBufferLimitBytes":"32768"}"#,
        Format::Json,
    );
    let a: Cluster = a.expect("yaml").into_typed().expect("cluster");
    let b: Cluster = b.expect("json").into_typed().expect("cluster");
    assert_eq!(a, b);
    assert_eq!(a.connect_timeout.map(|d| (d.seconds, d.nanos)), Some((0, 250_000_000)));
    assert_eq!(a.lb_policy, 1);
    assert_eq!(a.per_connection_buffer_limit_bytes, Some(32768));
}

#[test]
fn duration_as_a_mapping_is_the_same_as_one_as_text() {
    let read = |text: &str| {
        let cluster: Cluster = yaml::<Cluster>(text).expect("accepted").into_typed().expect("cluster");
        cluster.connect_timeout.map(|time| (time.seconds, time.nanos))
    };
    assert_eq!(read("connect_timeout: {seconds: 30, nanos: 5}"), Some((30, 5)));
    assert_eq!(read("connect_timeout: {nanos: 0}"), Some((0, 0)));
    let found = problems::<Cluster>("connect_timeout: {second: 30}");
    assert!(found[0].starts_with("line 1: connect_timeout.second: unknown field"), "{found:?}");
}

#[test]
fn every_problem_is_reported_with_line_and_path() {
    let found = problems::<Bootstrap>(
        "static_resources:\n  clusters:\n  - name: a\n    conect_timeout: 1s\n  - name: 5\n    health_checks: [{http_health_check: {codec_client_type: HTTP3}}]\n    lrs_server: {self: {}}\n  - connect_timeout: 5\nfoo: 1\n",
    );
    assert_eq!(
        found,
        [
            "line 4: static_resources.clusters[0].conect_timeout: unknown field of envoy.config.cluster.v3.Cluster; did you mean `connect_timeout`?",
            "line 5: static_resources.clusters[1].name: expected a text, found an integer; put it in quotes",
            "line 6: static_resources.clusters[1].health_checks[0].http_health_check.codec_client_type: `HTTP3` is not supported by Outrigger",
            "line 7: static_resources.clusters[1].lrs_server: not supported by Outrigger (envoy.config.cluster.v3.Cluster.lrs_server, #42)",
            "line 8: static_resources.clusters[2].connect_timeout: expected a duration in seconds such as `1.5s`",
            "line 9: foo: unknown field of envoy.config.bootstrap.v3.Bootstrap",
        ]
    );
}

#[test]
fn any_is_read_by_its_type_and_refused_when_unknown() {
    let text = "filter_chains:\n- filters:\n  - name: a\n    typed_config:\n      \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n      stat_prefix: in\n      codec_typ: AUTO\n      http_filters:\n      - name: c\n        typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}\n      - name: d\n        typed_config: {\"@type\": type.googleapis.com/acme.v1.Thing}\n      - name: e\n        typed_config: {}\n";
    let found = problems::<Listener>(text);
    let base = "filter_chains[0].filters[0].typed_config";
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found[0].starts_with(&format!("line 7: {base}.codec_typ: unknown field")), "{}", found[0]);
    assert!(found[0].ends_with("did you mean `codec_type`?"), "{}", found[0]);
    assert_eq!(
        found[1],
        format!(
            "line 10: {base}.http_filters[0].typed_config: the type `envoy.extensions.filters.http.lua.v3.Lua` is not supported by Outrigger"
        )
    );
    assert_eq!(
        found[2],
        format!("line 12: {base}.http_filters[1].typed_config: the type `acme.v1.Thing` is not known")
    );
    assert_eq!(found[3], format!("line 14: {base}.http_filters[2].typed_config: has no `@type`"));
}

#[test]
fn two_members_of_a_oneof_are_refused() {
    let found = problems::<RouteConfiguration>(
        "virtual_hosts: [{routes: [{match: {prefix: /, path: /}, route: {cluster: a}}]}]",
    );
    assert_eq!(
        found,
        ["line 1: virtual_hosts[0].routes[0].match.path: cannot be given together with `prefix`"]
    );
}

#[test]
fn a_lone_value_is_a_list_of_one_and_null_is_absence() {
    let checked =
        yaml::<RouteConfiguration>("name: ~\nvirtual_hosts: {name: a, domains: '*'}").expect("accepted");
    let typed: RouteConfiguration = checked.into_typed().expect("typed");
    assert_eq!(typed.name, "");
    assert_eq!(typed.virtual_hosts[0].domains, ["*"]);
}

#[test]
fn ignored_fields_become_notices_in_both_forms() {
    let checked = yaml::<Listener>("name: a\nstat_prefix: x\n").expect("accepted");
    assert_eq!(checked.notices.len(), 1);
    assert_eq!(checked.notices[0].path, "stat_prefix");
    let mut bytes = Listener { name: "a".into(), ..Listener::default() }.encode_to_vec();
    // Field 28 (stat_prefix), length-delimited, "x".
    bytes.extend([0xe2, 0x01, 0x01, b'x']);
    let checked =
        from_binary("type.googleapis.com/envoy.config.listener.v3.Listener", &bytes).expect("accepted");
    assert_eq!(checked.notices.len(), 1);
    assert_eq!(checked.notices[0].path, "stat_prefix");
}

#[test]
fn unknown_numbers_are_found_in_every_depth_of_a_binary() {
    let mut hcm = HttpConnectionManager { stat_prefix: "in".into(), ..HttpConnectionManager::default() }
        .encode_to_vec();
    // Field 44 (http3_protocol_options), an empty message; field 1000, a varint; codec_type 3 (HTTP3).
    hcm.extend([0xe2, 0x02, 0x00, 0xc0, 0x3e, 0x01, 0x08, 0x03]);
    let mut typed = any(&HttpConnectionManager::default());
    typed.value = hcm;
    let listener = Listener {
        name: "a".into(),
        filter_chains: vec![FilterChain {
            filters: vec![Filter {
                name: "h".into(),
                config_type: Some(filter::ConfigType::TypedConfig(typed)),
            }],
            ..FilterChain::default()
        }],
        ..Listener::default()
    };
    let found =
        from_binary("type.googleapis.com/envoy.config.listener.v3.Listener", &listener.encode_to_vec())
            .expect_err("refused");
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    let base = "filter_chains[0].filters[0].typed_config";
    let hcm = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    assert_eq!(
        found,
        [
            format!(
                "{base}.http3_protocol_options: not supported by Outrigger ({hcm}.http3_protocol_options, #44)"
            ),
            format!("{base}.#1000: field #1000 of {hcm} is not known"),
            format!("{base}.codec_type: `HTTP3` is not supported by Outrigger"),
        ]
    );
}

#[test]
fn garbage_is_refused_without_panic() {
    for bytes in [&[0xff_u8][..], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], &[0x0b]] {
        assert!(from_binary("type.googleapis.com/envoy.config.listener.v3.Listener", bytes).is_err());
    }
    for text in ["a: [", "\t- x", "{", "a: 1\na: 2\n", "- 1", "5", "a\n---\nb", ""] {
        assert!(yaml::<Listener>(text).is_err(), "{text:?}");
    }
    assert!(from_text::<Listener>("{", Format::Json).is_err());
    assert!(from_binary("type.googleapis.com/nothing.at.All", &[]).is_err());
    assert!(from_binary("", &[]).is_err());
}

#[test]
fn nesting_is_limited() {
    let deep = |n: usize| {
        format!(
            "filter_chains: [{{filter_chain_match: {{}}}}]\naccess_log: [{{typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog, log_format: {{json_format: {}1{}}}}}}}]",
            "{a: ".repeat(n),
            "}".repeat(n)
        )
    };
    assert!(yaml::<Listener>(&deep(20)).is_ok());
    assert!(yaml::<Listener>(&deep(500)).is_err());
}

#[test]
fn syntax_errors_name_their_line() {
    let found = yaml::<Listener>("name: a\nfilter_chains: [\n").expect_err("refused");
    assert_eq!(found.len(), 1);
    assert!(found[0].line.is_some(), "{found:?}");
    assert!(found[0].reason.starts_with("not valid YAML"), "{found:?}");
}

#[test]
fn lines_are_found_for_paths_and_their_surroundings() {
    let checked = yaml::<Bootstrap>("static_resources:\n  clusters:\n  - name: a\n").expect("accepted");
    assert_eq!(checked.lines.find("static_resources.clusters[0].name"), Some(3));
    assert_eq!(checked.lines.find("static_resources.clusters[0].tls.sni"), Some(3));
    assert_eq!(checked.lines.find("admin"), None);
}

#[test]
fn wrappers_structs_bytes_and_maps_are_read() {
    let text = r#"
name: a
metadata: {filter_metadata: {outrigger: {labels: {x: "1", n: 2.5, l: [true, null]}}}}
typed_extension_protocol_options:
  k: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http_protocol_options: {}}}
outlier_detection: {consecutive_5xx: "7", interval: 2s}
"#;
    let typed: Cluster = yaml::<Cluster>(text).expect("accepted").into_typed().expect("typed");
    assert_eq!(typed.outlier_detection.as_ref().and_then(|o| o.consecutive_5xx), Some(7));
    assert!(typed.typed_extension_protocol_options["k"].type_url.ends_with("HttpProtocolOptions"));
    let labels = &typed.metadata.expect("metadata").filter_metadata["outrigger"].fields["labels"];
    assert!(format!("{labels:?}").contains("2.5"));
}

#[test]
fn mutated_binaries_never_panic_and_accepted_ones_have_their_type() {
    let hcm = HttpConnectionManager { stat_prefix: "in".into(), ..HttpConnectionManager::default() };
    let listener = Listener {
        name: "a".into(),
        filter_chains: vec![FilterChain {
            filters: vec![Filter {
                name: "h".into(),
                config_type: Some(filter::ConfigType::TypedConfig(any(&hcm))),
            }],
            ..FilterChain::default()
        }],
        ..Listener::default()
    };
    let bytes = listener.encode_to_vec();
    let url = "type.googleapis.com/envoy.config.listener.v3.Listener";
    let mut accepted = 0;
    for position in 0..bytes.len() {
        for bit in 0..8 {
            let mut mutated = bytes.clone();
            mutated[position] ^= 1 << bit;
            match from_binary(url, &mutated) {
                Ok(checked) => {
                    checked.into_typed::<Listener>().expect("the type that was checked");
                    accepted += 1;
                }
                Err(problems) => assert!(!problems.is_empty(), "refused without a reason"),
            }
        }
        assert!(from_binary(url, &bytes[..position]).is_ok() || position > 0);
    }
    // Letters inside names change freely; most other flips do not.
    assert!(accepted > 0);
}

#[test]
fn keys_that_are_to_be_ignored_only_hold_anchors() {
    use crate::envoy::config::core::v3::Node;
    let text = "!ignore mine:\n- &name {id: n1}\nid: n2\n";
    let node: Node = from_text::<Node>(text, Format::Yaml).unwrap().into_typed().unwrap();
    assert_eq!(node.id, "n2");
    assert!(from_text::<Node>("mine: 1\nid: n2\n", Format::Yaml).is_err());
}
