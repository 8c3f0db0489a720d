//! Route tables: virtual hosts, matches, actions, retries, header edits.

use super::*;
use config::{
    Action, ClusterChoice, HeaderAppend, HeaderValueMatch, HostRewrite, PathMatch, PathRewrite,
    QueryValueMatch, ResetHeaderFormat, StringPattern,
};
use std::time::Duration;

fn table(text: &str) -> Result<config::RouteConfig, Vec<ConfigError>> {
    translate_route_config(&message(text))
}

/// The one route of a table.
fn route(fields: &str) -> Result<config::Route, Vec<ConfigError>> {
    let text = format!("{{name: t, virtual_hosts: [{{name: v, domains: ['*'], routes: [{{{fields}}}]}}]}}");
    table(&text).map(|mut t| t.virtual_hosts.remove(0).routes.remove(0))
}

fn forward(fields: &str) -> Result<config::RouteAction, Vec<ConfigError>> {
    match route(&format!("match: {{prefix: /}}, route: {{{fields}}}"))?.action {
        Action::Forward(action) => Ok(*action),
        other => panic!("{other:?}"),
    }
}

#[test]
fn simple_route_has_envoys_defaults() {
    assert_eq!(forward("cluster: c").expect("accepted"), config::RouteAction::to("c"));
    let found = route("match: {prefix: /a}, route: {cluster: c}").expect("accepted");
    assert_eq!(found.matches, config::RouteMatch::prefix("/a"));
    assert!(found.headers.is_empty() && found.filters.is_none());
}

#[test]
fn own_tables_do_not_check_clusters_and_need_a_name() {
    assert!(!table("name: t").expect("accepted").validate_clusters);
    assert!(table("{name: t, validate_clusters: true}").expect("accepted").validate_clusters);
    assert_eq!(reasons(table("{}")), ["name: must not be empty"]);
}

#[test]
fn virtual_hosts_are_translated() {
    let found = table(
        "{name: t, ignore_port_in_host_matching: true, most_specific_header_mutations_wins: true, virtual_hosts: [{name: v, domains: [A.B, '*.C'], require_tls: ALL,
        include_request_attempt_count: true, include_attempt_count_in_response: true, per_request_buffer_limit_bytes: 9, retry_policy: {retry_on: reset},
        metadata: {filter_metadata: {outrigger: {retry_non_idempotent: true}, istio: {x: y}}},
        typed_per_filter_config: {envoy.filters.http.rbac: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute}}}]}",
    )
    .expect("accepted");
    assert!(found.ignore_port_in_host_matching && found.most_specific_header_mutations_wins);
    let host = &found.virtual_hosts[0];
    assert_eq!(host.domains, ["a.b", "*.c"]);
    assert!(host.require_tls && host.include_request_attempt_count && host.include_attempt_count_in_response);
    let off = config::FilterOverride::with(config::RouteFilterConfig::Rbac(None));
    let off = Some([("envoy.filters.http.rbac".to_owned(), off)].into());
    assert_eq!((host.per_request_buffer_limit_bytes, &host.filters), (Some(9), &off));
    let retry = host.retry_policy.as_ref().expect("retry");
    assert!(retry.retry_non_idempotent && retry.retry_on.reset);
}

#[test]
fn impossible_tables_are_refused() {
    for (text, expected) in [
        (
            "virtual_hosts: [{name: a, domains: [x]}, {name: a, domains: [y]}]",
            "virtual_hosts[1].name: `a` is given twice",
        ),
        ("virtual_hosts: [{}]", "virtual_hosts[0].name: must not be empty"),
        ("virtual_hosts: [{}]", "virtual_hosts[0].domains: at least one is required"),
        ("virtual_hosts: [{domains: ['']}]", "virtual_hosts[0].domains[0]: must not be empty"),
        ("virtual_hosts: [{routes: [{}]}]", "virtual_hosts[0].routes[0].match: is required"),
        (
            "virtual_hosts: [{routes: [{}]}]",
            "virtual_hosts[0].routes[0]: `route`, `redirect` or `direct_response` is required",
        ),
        (
            "virtual_hosts: [{routes: [{match: {}}]}]",
            "virtual_hosts[0].routes[0].match: a criterion on the path is required",
        ),
    ] {
        let found = reasons(table(text));
        assert!(found.iter().any(|f| f == expected), "{text}\n{found:#?}");
    }
}

#[test]
fn every_criterion_is_translated() {
    let found = route(
        "name: r, decorator: {operation: op}, match: {path_separated_prefix: /a, case_sensitive: false, grpc: {}, runtime_fraction: {default_value: {numerator: 5, denominator: TEN_THOUSAND}},
        headers: [{name: X-A, string_match: {exact: v, ignore_case: true}, invert_match: true}, {name: ':method', exact_match: GET}, {name: b}, {name: c, present_match: false},
          {name: d, range_match: {start: -1, end: 5}, treat_missing_header_as_empty: true}, {name: e, safe_regex_match: {google_re2: {}, regex: 'a.*'}}, {name: f, prefix_match: p}, {name: g, suffix_match: s}, {name: h, contains_match: m}],
        query_parameters: [{name: q}, {name: r, string_match: {suffix: z}}, {name: s, present_match: false}]}, direct_response: {status: 204}",
    )
    .expect("accepted");
    let matches = &found.matches;
    assert_eq!(matches.path, PathMatch::PathSeparatedPrefix("/a".into()));
    assert!(!matches.case_sensitive && matches.grpc);
    assert_eq!(matches.fraction.map(config::Fraction::millionths), Some(500));
    let names: Vec<&str> = matches.headers.iter().map(|h| h.name.as_str()).collect();
    assert_eq!(names, ["x-a", ":method", "b", "c", "d", "e", "f", "g", "h"]);
    assert!(matches.headers[0].invert && matches.headers[4].treat_missing_as_empty);
    assert!(matches!(&matches.headers[0].value, HeaderValueMatch::Text(t) if t.ignore_case));
    assert_eq!(matches.headers[2].value, HeaderValueMatch::Present(true));
    assert_eq!(matches.headers[3].value, HeaderValueMatch::Present(false));
    assert_eq!(matches.headers[4].value, HeaderValueMatch::Range(-1, 5));
    assert!(
        matches!(&matches.headers[5].value, HeaderValueMatch::Text(t) if t.pattern == StringPattern::Regex("a.*".into()))
    );
    assert_eq!(matches.query[0].value, QueryValueMatch::Present(true));
    assert!(
        matches!(&matches.query[1].value, QueryValueMatch::Text(t) if t.pattern == StringPattern::Suffix("z".into()))
    );
    assert_eq!((found.name.as_str(), found.decorator.as_deref()), ("r", Some("op")));
    for (specifier, expected) in [
        ("path: /x", PathMatch::Exact("/x".into())),
        ("safe_regex: {regex: '/y.*'}", PathMatch::Regex("/y.*".into())),
        ("connect_matcher: {}", PathMatch::Connect),
    ] {
        let found = route(&format!("match: {{{specifier}}}, route: {{cluster: c}}")).expect("accepted");
        assert_eq!(found.matches.path, expected);
    }
}

#[test]
fn impossible_criteria_are_refused() {
    for (fields, expected) in [
        (
            "path_separated_prefix: /a/",
            "path_separated_prefix: must not be empty, end with a slash, or contain `?` or `#`",
        ),
        ("safe_regex: {}", "safe_regex.regex: must not be empty"),
        ("headers: [{}]", "headers[0].name: `` is not a header name"),
        ("headers: [{name: a, string_match: {}}]", "headers[0].string_match: is required"),
        (
            "headers: [{name: a, string_match: {prefix: ''}}]",
            "headers[0].string_match.prefix: must not be empty",
        ),
        (
            "headers: [{name: a, string_match: {safe_regex: {regex: a}, ignore_case: true}}]",
            "headers[0].string_match.ignore_case: has no meaning for a regular expression",
        ),
        ("query_parameters: [{}]", "query_parameters[0].name: must not be empty"),
        ("runtime_fraction: {runtime_key: k}", "runtime_fraction.default_value: is required"),
    ] {
        let found = reasons(route(&format!("match: {{{fields}}}, route: {{cluster: c}}")));
        let expected = format!("virtual_hosts[0].routes[0].match.{expected}");
        assert!(found.contains(&expected), "{fields}\n{found:#?}");
    }
}

#[test]
fn forwarding_settings_are_taken_over() {
    let found = forward(
        "weighted_clusters: {total_weight: 4, clusters: [{name: a, weight: 1, host_rewrite_literal: h, request_headers_to_remove: [X]}, {name: b, weight: 3}]},
        cluster_not_found_response_code: NOT_FOUND, prefix_rewrite: /new, host_rewrite_header: X-Host, append_x_forwarded_host: true, timeout: 0s, idle_timeout: 0s,
        max_stream_duration: {max_stream_duration: 7s, grpc_timeout_header_max: 0s}, max_grpc_timeout: 0s, priority: HIGH, upgrade_configs: [{upgrade_type: websocket, enabled: false}]",
    )
    .expect("accepted");
    let ClusterChoice::Weighted(shares) = &found.cluster else { panic!("weighted") };
    assert_eq!((shares[0].weight, shares[0].host_rewrite.as_deref()), (1, Some("h")));
    assert_eq!(shares[0].headers.request_remove, ["x"]);
    assert_eq!(found.cluster_not_found_status, 404);
    assert_eq!(found.path_rewrite, Some(PathRewrite::Prefix("/new".into())));
    assert_eq!(found.host_rewrite, Some(HostRewrite::Header("x-host".into())));
    assert_eq!((found.timeout, found.idle_timeout), (None, Some(Duration::ZERO)));
    assert_eq!(found.max_stream_duration, Some(Duration::from_secs(7)));
    assert_eq!(found.grpc_timeout_header_max, Some(Duration::ZERO));
    assert!(found.high_priority && found.append_x_forwarded_host && !found.upgrades[0].enabled);
    for (fields, expected) in [
        ("host_rewrite_literal: h", Some(HostRewrite::Literal("h".into()))),
        ("auto_host_rewrite: true", Some(HostRewrite::Auto)),
        ("auto_host_rewrite: false", None),
        (
            "host_rewrite_path_regex: {pattern: {regex: p}, substitution: s}",
            Some(HostRewrite::PathRegex { pattern: "p".into(), substitution: "s".into() }),
        ),
    ] {
        assert_eq!(
            forward(&format!("cluster_header: X-C, {fields}")).expect("accepted").host_rewrite,
            expected
        );
    }
}

#[test]
fn impossible_forwarding_is_refused() {
    for (fields, expected) in [
        ("{}", "route: `cluster`, `weighted_clusters` or `cluster_header` is required"),
        ("{cluster: ''}", "route.cluster: must not be empty"),
        ("{cluster_header: 'a b'}", "route.cluster_header: `a b` is not a header name"),
        ("{weighted_clusters: {}}", "route.weighted_clusters.clusters: at least one is required"),
        (
            "{weighted_clusters: {clusters: [{name: a}]}}",
            "route.weighted_clusters: the sum of the weights must be between 1 and 4294967295",
        ),
        (
            "{weighted_clusters: {clusters: [{name: a, weight: 4294967295}, {name: b, weight: 1}]}}",
            "route.weighted_clusters: the sum of the weights must be between 1 and 4294967295",
        ),
        (
            "{weighted_clusters: {total_weight: 5, clusters: [{name: a, weight: 4}]}}",
            "route.weighted_clusters.total_weight: is 5, but the weights sum up to 4",
        ),
        (
            "{cluster: c, prefix_rewrite: /, regex_rewrite: {pattern: {regex: a}}}",
            "route.regex_rewrite: cannot be given together with `prefix_rewrite`",
        ),
        ("{cluster: c, regex_rewrite: {}}", "route.regex_rewrite.pattern: is required"),
        ("{cluster: c, timeout: -1s}", "route.timeout: must not be negative"),
        (
            "{cluster: c, max_grpc_timeout: 1s, max_stream_duration: {grpc_timeout_header_max: 2s}}",
            "route.max_grpc_timeout: differs from `max_stream_duration.grpc_timeout_header_max`",
        ),
    ] {
        let found = reasons(route(&format!("match: {{prefix: /}}, route: {fields}")));
        let expected = format!("virtual_hosts[0].routes[0].{expected}");
        assert!(found.contains(&expected), "{fields}\n{found:#?}");
    }
}

#[test]
fn retry_policies_are_translated() {
    let found = forward(
        "cluster: c, retry_policy: {retry_on: '5xx, retriable-4xx,unavailable', num_retries: 0, per_try_timeout: 2s, per_try_idle_timeout: 0s, retriable_status_codes: [503, 429],
        retriable_headers: [{name: x}], retriable_request_headers: [{name: y}], retry_back_off: {base_interval: 0.1s}, host_selection_retry_max_attempts: 5,
        retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts}, {name: p, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}],
        rate_limited_retry_back_off: {reset_headers: [{name: Retry-After}, {name: x-reset, format: UNIX_TIMESTAMP}]}}",
    )
    .expect("accepted")
    .retry_policy
    .expect("retry");
    assert!(found.retry_on.server_error && found.retry_on.retriable_4xx && found.retry_on.grpc_unavailable);
    assert!(!found.retry_on.reset && !found.retry_non_idempotent && found.avoid_previous_hosts);
    assert_eq!((found.num_retries, found.host_selection_max_attempts), (0, 5));
    assert_eq!((found.per_try_timeout, found.per_try_idle_timeout), (Some(Duration::from_secs(2)), None));
    assert_eq!(found.retriable_status_codes, [503, 429]);
    assert_eq!(
        (found.base_interval, found.max_interval),
        (Duration::from_millis(100), Duration::from_secs(1))
    );
    let limited = found.rate_limited.expect("rate limited");
    assert_eq!(limited.max_interval, Duration::from_secs(300));
    assert_eq!(limited.reset_headers[0].name, "retry-after");
    assert_eq!(limited.reset_headers[1].format, ResetHeaderFormat::UnixTimestamp);
}

#[test]
fn what_depends_on_internal_requests_holds_for_all() {
    let around = Surroundings::default();
    let text = "{name: r, internal_only_headers: [X-User], virtual_hosts: [{name: v, domains: ['*'], require_tls: EXTERNAL_ONLY}]}";
    let found = translate_route_config_with(&message(text), &around).expect("accepted");
    assert!(found.virtual_hosts[0].require_tls);
    assert_eq!(found.internal_only_headers, ["x-user"]);
    let notices: Vec<String> = around.notices.take().into_iter().map(|notice| notice.path).collect();
    assert_eq!(notices, ["virtual_hosts[0].require_tls"]);
    let refused =
        reasons(translate_route_config(&message("{name: r, internal_only_headers: [':path', 'a b']}")));
    assert_eq!(refused.len(), 2, "{refused:?}");
}

#[test]
fn unknown_retry_conditions_are_accepted_with_a_notice() {
    let around = Surroundings::default();
    let text = "{name: r, virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: c,
        retry_policy: {retry_on: 'http3-post-connect-failure,5xx,5xy'}}}]}]}";
    let found = translate_route_config_with(&message(text), &around).expect("accepted");
    let Action::Forward(forward) = &found.virtual_hosts[0].routes[0].action else { panic!("{found:?}") };
    assert!(forward.retry_policy.as_ref().is_some_and(|retry| retry.retry_on.server_error));
    let notices: Vec<String> = around.notices.take().iter().map(ToString::to_string).collect();
    let at = "route_config/r: virtual_hosts[0].routes[0].route.retry_policy.retry_on";
    assert_eq!(
        notices,
        [
            format!("{at}: `http3-post-connect-failure` is not a retry condition"),
            format!("{at}: `5xy` is not a retry condition"),
        ]
    );
}

#[test]
fn impossible_retry_policies_are_refused() {
    for (fields, expected) in [
        ("retriable_status_codes: [600]", "retriable_status_codes[0]: 600 is not a status"),
        ("retry_back_off: {}", "retry_back_off.base_interval: is required"),
        ("retry_back_off: {base_interval: 0s}", "retry_back_off.base_interval: must be greater than 0s"),
        (
            "retry_back_off: {base_interval: 2s, max_interval: 1s}",
            "retry_back_off.max_interval: must not be below `base_interval`",
        ),
        (
            "rate_limited_retry_back_off: {}",
            "rate_limited_retry_back_off.reset_headers: at least one is required",
        ),
        ("retry_host_predicate: [{name: x}]", "retry_host_predicate[0].typed_config: is required"),
        ("host_selection_retry_max_attempts: -1", "host_selection_retry_max_attempts: is out of range"),
    ] {
        let found = reasons(forward(&format!("cluster: c, retry_policy: {{{fields}}}")));
        let expected = format!("virtual_hosts[0].routes[0].route.retry_policy.{expected}");
        assert!(found.contains(&expected), "{fields}\n{found:#?}");
    }
}

#[test]
fn redirects_and_direct_responses_are_translated() {
    let found = route("match: {prefix: /}, redirect: {host_redirect: h, port_redirect: 8443, path_redirect: '/p?q', response_code: PERMANENT_REDIRECT, strip_query: true, https_redirect: true}")
        .expect("accepted");
    let Action::Redirect(redirect) = found.action else { panic!("redirect") };
    assert_eq!(
        (redirect.status, redirect.scheme.as_deref(), redirect.port),
        (308, Some("https"), Some(8443))
    );
    assert_eq!((redirect.host.as_deref(), redirect.path.as_deref()), (Some("h"), Some("/p?q")));
    let found = route("match: {prefix: /}, redirect: {prefix_rewrite: /n}").expect("accepted");
    let Action::Redirect(redirect) = found.action else { panic!("redirect") };
    assert_eq!((redirect.status, redirect.port, redirect.scheme), (301, None, None));
    assert_eq!(redirect.path_rewrite, Some(PathRewrite::Prefix("/n".into())));
    let found = route("match: {prefix: /}, direct_response: {status: 503, body: {inline_string: sorry}}")
        .expect("accepted");
    let Action::Direct(direct) = found.action else { panic!("direct") };
    assert_eq!((direct.status, direct.body.as_slice()), (503, b"sorry".as_slice()));
}

#[test]
fn direct_bodies_are_limited_where_the_table_says() {
    let table_with = |limit: &str, bytes: usize| {
        table(&format!(
            "{{name: t, {limit} virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: '{}'}}}}}}]}}]}}",
            "x".repeat(bytes)
        ))
    };
    assert!(table_with("", 4096).is_ok());
    assert_eq!(
        reasons(table_with("", 4097)),
        ["virtual_hosts[0].routes[0].direct_response.body: has 4097 bytes; 4096 are allowed"]
    );
    assert!(table_with("max_direct_response_body_size_bytes: 5000,", 5000).is_ok());
    for status in [199, 600] {
        let found = reasons(route(&format!("match: {{prefix: /}}, direct_response: {{status: {status}}}")));
        assert_eq!(found, ["virtual_hosts[0].routes[0].direct_response.status: must be between 200 and 599"]);
    }
}

#[test]
fn header_edits_are_translated_with_both_switches() {
    let found = route(
        "match: {prefix: /}, route: {cluster: c}, request_headers_to_remove: [X-Gone], response_headers_to_add: [
        {header: {key: A, value: '%PROTOCOL%'}}, {header: {key: b, value: x}, append: false}, {header: {key: c, value: x}, append_action: ADD_IF_ABSENT},
        {header: {key: d, raw_value: eA==}, append_action: OVERWRITE_IF_EXISTS, keep_empty_value: true}]",
    )
    .expect("accepted")
    .headers;
    assert_eq!(found.request_remove, ["x-gone"]);
    let added: Vec<_> =
        found.response_add.iter().map(|e| (e.name.as_str(), e.value.as_str(), e.append)).collect();
    assert_eq!(
        added,
        [
            ("a", "%PROTOCOL%", HeaderAppend::AppendIfExistsOrAdd),
            ("b", "x", HeaderAppend::OverwriteIfExistsOrAdd),
            ("c", "x", HeaderAppend::AddIfAbsent),
            ("d", "x", HeaderAppend::OverwriteIfExists),
        ]
    );
    assert!(found.response_add[3].keep_empty_value);
    for (edit, expected) in [
        ("request_headers_to_add: [{}]", "request_headers_to_add[0].header: is required"),
        (
            "request_headers_to_add: [{header: {key: ':path', value: x}}]",
            "request_headers_to_add[0].header.key: `:path` is a pseudo-header",
        ),
        (
            "request_headers_to_remove: [Host]",
            "request_headers_to_remove[0]: `host` is changed by the host rewrites of the route",
        ),
        (
            "request_headers_to_add: [{header: {key: a, value: x}, append: true, append_action: ADD_IF_ABSENT}]",
            "request_headers_to_add[0].append: cannot be given together with `append_action`",
        ),
    ] {
        let found = reasons(route(&format!("match: {{prefix: /}}, route: {{cluster: c}}, {edit}")));
        assert_eq!(found, [format!("virtual_hosts[0].routes[0].{expected}")], "{edit}");
    }
}

#[test]
fn mirrors_redirect_policies_and_templates_are_translated() {
    use config::{Fraction, InternalRedirect, Mirror, MirrorCluster, TlsMatch};
    let found = forward(
        "cluster: c, request_mirror_policies: [{cluster: m, runtime_fraction: {default_value: {numerator: 5}}, trace_sampled: false, disable_shadow_host_suffix_append: true},
        {cluster_header: X-M, host_rewrite_literal: h}], internal_redirect_policy: {max_internal_redirects: 2, redirect_response_codes: [307, 302, 200], allow_cross_scheme_redirect: true,
        response_headers_to_copy: [X-C], predicates: [{name: s, typed_config: {'@type': type.googleapis.com/envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig}},
        {name: p, typed_config: {'@type': type.googleapis.com/envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig}},
        {name: l, typed_config: {'@type': type.googleapis.com/envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig, allowed_route_names: [r]}}]},
        path_rewrite: '/%REQ(x)%', host_rewrite: '%REQ(x)%', max_stream_duration: {grpc_timeout_header_offset: 0.1s}",
    )
    .expect("accepted");
    let first = Mirror {
        fraction: Fraction::from_percent(5),
        trace_sampled: Some(false),
        keep_host: true,
        ..Mirror::to("m")
    };
    let second = Mirror {
        cluster: MirrorCluster::Header("x-m".into()),
        host_rewrite: Some("h".into()),
        ..Mirror::to("")
    };
    assert_eq!(found.mirrors, [first, second]);
    let policy = InternalRedirect {
        max: 2,
        statuses: vec![302, 307],
        cross_scheme: true,
        safe_cross_scheme: true,
        new_routes_only: true,
        allowed_routes: Some(vec!["r".into()]),
        copied_headers: vec!["x-c".into()],
    };
    assert_eq!(found.internal_redirect, Some(policy));
    assert_eq!(found.path_rewrite, Some(PathRewrite::Format("/%REQ(x)%".into())));
    assert_eq!(found.host_rewrite, Some(HostRewrite::Format("%REQ(x)%".into())));
    assert_eq!(found.grpc_timeout_header_offset, Duration::from_millis(100));
    let found = route(
        "match: {path_match_policy: {name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: '/a/{b}'}}, tls_context: {presented: true}},
        tracing: {random_sampling: {numerator: 1}, operation: o, custom_tags: [{tag: t, request_header: {name: X-T, default_value: d}}]},
        route: {weighted_clusters: {header_name: X-N, clusters: [{cluster_header: X-C, weight: 1}]}}",
    )
    .expect("accepted");
    assert_eq!(found.matches.path, PathMatch::Template("/a/{b}".into()));
    assert_eq!(found.matches.tls, Some(TlsMatch { presented: Some(true), validated: None }));
    let tracing = found.tracing.expect("tracing");
    assert_eq!((tracing.random_sampling, tracing.operation.as_str()), (Some(Fraction::from_percent(1)), "o"));
    assert_eq!((tracing.tags[0].value.as_str(), tracing.tags[0].default_value.as_str()), ("%REQ(x-t)%", "d"));
    let Action::Forward(action) = found.action else { panic!("forwards") };
    assert_eq!(action.split_header.as_deref(), Some("x-n"));
    let ClusterChoice::Weighted(shares) = &action.cluster else { panic!("weighted") };
    assert_eq!(shares[0].cluster_header.as_deref(), Some("x-c"));
}

#[test]
fn mirrors_and_rewrites_that_contradict_themselves_are_refused() {
    for (fields, expected) in [
        (
            "request_mirror_policies: [{}]",
            "request_mirror_policies[0]: `cluster` or `cluster_header` is required",
        ),
        (
            "request_mirror_policies: [{cluster: a, cluster_header: b}]",
            "request_mirror_policies[0].cluster_header: cannot be given together with `cluster`",
        ),
        (
            "prefix_rewrite: /a, path_rewrite: /b",
            "path_rewrite: cannot be given together with another rewrite of the path",
        ),
        (
            "internal_redirect_policy: {predicates: [{name: x, typed_config: {'@type': type.googleapis.com/envoy.config.core.v3.Locality}}]}",
            "internal_redirect_policy.predicates[0].typed_config: the type `envoy.config.core.v3.Locality` is not supported here",
        ),
    ] {
        let found = reasons(forward(&format!("cluster: c, {fields}")));
        assert!(found.iter().any(|f| f.ends_with(expected)), "{fields}\n{found:#?}");
    }
}
