//! What a scrape shows.

use crate::exposition::{read, value};
use crate::support::*;
use outrigger_testkit::{H1Client, Origin, client::get};
use outrigger_traffic::config::Endpoint;

#[tokio::test]
async fn scrape_shows_envoys_and_istios_names_with_the_right_counts() {
    let origin = Origin::h1("one").await;
    let proxy = start();
    let mut config = simple(&[]);
    let mut endpoint = Endpoint::at(origin.address());
    endpoint.labels = [
        ("workload", "reviews"),
        ("namespace", "shop"),
        ("version", "v2"),
        ("principal", "spiffe://m/ns/shop/sa/r"),
    ]
    .map(|(n, v)| (n.to_owned(), v.to_owned()))
    .to_vec();
    let mut all = endpoints("a", &[]);
    all.localities[0].endpoints.push(endpoint);
    config.clusters[0].discovery = outrigger_traffic::config::ClusterDiscovery::Static(all);
    config.clusters[0].labels = vec![("destination_service".into(), "reviews.shop.mesh".into())];
    proxy.apply(config).unwrap();
    let mut client = H1Client::connect(address(&proxy)).await;
    for _ in 0..3 {
        client.request("POST", "/status/200", &[("host", "h")], b"12345").await.unwrap();
    }
    client.request("GET", "/status/503", &[("host", "h")], b"").await.unwrap();
    // A response is with the client a moment before it is counted.
    eventually("four requests to be counted", async || {
        let stats =
            admin_text(&proxy, "/stats?filter=downstream_rq_active|upstream_rq_active|rq_completed").await;
        (stats.contains("downstream_rq_completed: 4") && stats.matches("_active: 0").count() == 2)
            .then_some(())
    })
    .await;
    let text = admin_text(&proxy, "/stats/prometheus").await;
    if let Ok(path) = std::env::var("OUTRIGGER_TEST_EXPOSITION") {
        std::fs::write(path, &text).unwrap();
    }
    let families = read(&text);
    let cluster = [("envoy_cluster_name", "a")];
    assert_eq!(value(&families, "envoy_cluster_upstream_rq_total", &cluster), 4.0);
    let class = |class| [("envoy_cluster_name", "a"), ("envoy_response_code_class", class)];
    assert_eq!(value(&families, "envoy_cluster_upstream_rq_xx", &class("2")), 3.0);
    assert_eq!(value(&families, "envoy_cluster_upstream_rq_xx", &class("5")), 1.0);
    assert_eq!(value(&families, "envoy_cluster_membership_total", &cluster), 1.0);
    assert_eq!(value(&families, "envoy_cluster_upstream_cx_active", &cluster), 1.0);
    let http = [("envoy_http_conn_manager_prefix", "ingress")];
    assert_eq!(value(&families, "envoy_http_downstream_rq_total", &http), 4.0);
    assert_eq!(value(&families, "envoy_http_downstream_rq_active", &http), 0.0);
    assert_eq!(value(&families, "envoy_http_downstream_cx_active", &http), 1.0);
    assert_eq!(value(&families, "envoy_http_downstream_rq_time_count", &http), 4.0);
    assert_eq!(
        value(&families, "envoy_listener_downstream_cx_total", &[("envoy_listener_address", "in")]),
        1.0
    );
    assert_eq!(value(&families, "envoy_server_live", &[]), 1.0);
    let istio = |code| {
        [
            ("reporter", "source"),
            ("source_workload", "front"),
            ("source_version", "v1"),
            ("destination_workload", "reviews"),
            ("destination_workload_namespace", "shop"),
            ("destination_version", "v2"),
            ("destination_principal", "spiffe://m/ns/shop/sa/r"),
            ("destination_service", "reviews.shop.mesh"),
            ("destination_service_name", "reviews"),
            ("request_protocol", "http"),
            ("response_code", code),
            ("response_flags", "-"),
            ("connection_security_policy", "unknown"),
        ]
    };
    assert_eq!(value(&families, "istio_requests_total", &istio("200")), 3.0);
    assert_eq!(value(&families, "istio_requests_total", &istio("503")), 1.0);
    assert_eq!(value(&families, "istio_request_bytes_sum", &istio("200")), 15.0);
    assert_eq!(value(&families, "istio_request_duration_milliseconds_count", &istio("200")), 3.0);
    for (name, family) in &families {
        assert!(!family.help.is_empty() && !family.kind.is_empty(), "{name}");
        // Envoy's gauge `membership_total` must not be taken for a counter.
        let wanted = match (name.ends_with("_total"), name == "envoy_cluster_membership_total") {
            (true, false) => family.kind == "counter",
            (true, true) => family.kind == "untyped",
            (false, _) => family.kind != "counter",
        };
        assert!(wanted, "{name} is a {}", family.kind);
    }
}

#[tokio::test]
async fn scrape_can_be_narrowed() {
    let proxy = start();
    proxy.apply(simple(&[])).unwrap();
    assert_eq!(get(address(&proxy), "h", "/").await.status, 503);
    let all = eventually("the request to be counted", async || {
        let all = read(&admin_text(&proxy, "/stats/prometheus").await);
        all.contains_key("istio_requests_total").then_some(all)
    })
    .await;
    let used = read(&admin_text(&proxy, "/stats/prometheus?usedonly").await);
    assert!(used.len() < all.len() && used.contains_key("envoy_http_downstream_rq_total"));
    assert!(!used.contains_key("envoy_cluster_upstream_rq_retry"));
    let some = read(&admin_text(&proxy, "/stats?format=prometheus&filter=^envoy_http_").await);
    assert!(!some.is_empty() && some.keys().all(|name| name.starts_with("envoy_http_")));
    assert_eq!(admin(&proxy, "GET", "/stats?filter=(").await.status, 400);
    let flags = value(&all, "istio_requests_total", &[("response_flags", "UH"), ("response_code", "503")]);
    assert_eq!(flags, 1.0, "no host is no healthy host");
}
