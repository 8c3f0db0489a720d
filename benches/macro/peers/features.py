"""Envoy's configuration files for both Envoy and Outrigger: minimal, or with the features of a mesh on."""

from scenario import BACK, hops

TYPES = "type.googleapis.com/envoy.extensions."
ID = "spiffe://mesh/ns/default/sa/"
ALPN = {"h1": "http/1.1", "h2": "h2"}


def features_on():
    """What "mesh features on" means in every table of this project. All of it is in effect on every request:

    * route: a table with virtual hosts; time limit of 15 s; two retries on 5xx, gateway errors, failed connects and
      refused streams, within a retry budget of 20 % (at least 3);
    * cluster: circuit breakers armed (limits that the load does not reach), outlier detection by consecutive 5xx and
      gateway failures, and by success rate;
    * authorization: HTTP RBAC; on TLS listeners it demands the client's SPIFFE id, elsewhere it lets anyone in;
    * tracing: W3C context read and handed on; the load samples 1 % of its requests, a sampler of 1 % decides on others;
      spans go to a collector over OTLP/gRPC;
    * metrics: Envoy's statistics with remaining resources; Outrigger adds Istio's request metrics (Envoy would need its
      stats filter, which stock Envoy has not: Envoy is spared this);
    * request ids are generated and handed on. Access log: off.
    """
    return {
        "route": {
            "timeout": "15s",
            "retry_policy": {"retry_on": "5xx,gateway-error,connect-failure,refused-stream", "num_retries": 2},
        },
        "cluster": {
            "outlier_detection": {"consecutive_5xx": 5, "consecutive_gateway_failure": 5, "enforcing_success_rate": 100},
            "circuit_breakers": {"thresholds": [{
                "max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000, "max_retries": 100,
                "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 3},
                "track_remaining": True}]},
        },
        "manager": {"tracing": {
            "random_sampling": {"value": 1},
            "provider": {"name": "envoy.tracers.opentelemetry", "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "grpc_service": {"envoy_grpc": {"cluster_name": "spans"}, "timeout": "1s"},
                "service_name": "bench"}}}},
    }


def rbac(demands_client):
    """The authorization filter; see `features_on`."""
    who = {"authenticated": {"principal_name": {"exact": ID + "client"}}} if demands_client else {"any": True}
    policy = {"permissions": [{"any": True}], "principals": [who]}
    return {"name": "rbac", "typed_config": {"@type": TYPES + "filters.http.rbac.v3.RBAC", "rules": {"policies": {"p": policy}}}}


def configurations(scenario, bench, mesh):
    """The bootstrap of every hop of a scenario."""
    return [bootstrap(scenario, bench, hop, mesh) for hop in hops(scenario)]


def bootstrap(scenario, bench, hop, mesh):
    """The bootstrap of one hop: with `features_on`, or a bare reverse proxy without statistics."""
    port, protocol_in, tls_in, upstream, protocol_out, tls_out = hop
    on = features_on() if mesh else {"route": {}, "cluster": {}, "manager": {"generate_request_id": False}}
    router = {"@type": TYPES + "filters.http.router.v3.Router"}
    if not mesh:
        router |= {"suppress_envoy_headers": True, "dynamic_stats": False}
    manager = {
        "@type": TYPES + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": {"h1": "HTTP1", "h2": "HTTP2"}[protocol_in],
        "route_config": {"virtual_hosts": virtual_hosts(scenario, {"cluster": "b"} | on["route"])},
        "http_filters": ([rbac(tls_in)] if mesh else []) + [{"name": "router", "typed_config": router}],
    } | on["manager"]
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    if tls_in:
        context = TYPES + "transport_sockets.tls.v3.DownstreamTlsContext"
        chain["transport_socket"] = {"name": "tls", "typed_config": {
            "@type": context, "require_client_certificate": True, "common_tls_context": tls(bench, "app", protocol_in)}}
    cluster = static_cluster("b", upstream, protocol_out) | on["cluster"]
    if tls_out:
        context = TYPES + "transport_sockets.tls.v3.UpstreamTlsContext"
        cluster["transport_socket"] = {"name": "tls", "typed_config": {
            "@type": context, "sni": "app.mesh", "common_tls_context": tls(bench, "client", protocol_out)}}
    listener = {"name": "l", "address": address(port), "filter_chains": [chain]}
    clusters = [cluster] + ([static_cluster("spans", BACK["spans"], "h2")] if mesh else [])
    document = {"static_resources": {"clusters": clusters, "listeners": [listener]}}
    if mesh:
        document["node"] = {"id": "bench", "cluster": "bench"}
    else:
        document["stats_config"] = {"stats_matcher": {"reject_all": True}}
    return document


def virtual_hosts(scenario, action):
    """One route, or as many hosts or prefixes as the scenario asks for."""
    def to(prefix):
        return {"match": {"prefix": prefix}, "route": action}

    if scenario.get("hosts"):
        return [{"name": f"v{n}", "domains": [f"svc-{n}.mesh"], "routes": [to("/")]} for n in range(scenario["hosts"])]
    routes = [to(f"/api/r{n}/") for n in range(scenario["paths"])] if scenario.get("paths") else [to("/")]
    return [{"name": "v", "domains": ["*"], "routes": routes}]


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def static_cluster(name, port, protocol):
    """A cluster with one endpoint on loopback."""
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]
    cluster = {"name": name, "type": "STATIC", "connect_timeout": "1s",
               "load_assignment": {"cluster_name": name, "endpoints": endpoints}}
    if protocol == "h2":
        options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        cluster["typed_extension_protocol_options"] = {options: {
            "@type": TYPES + "upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}}}}
    return cluster


def tls(bench, name, protocol):
    """Mutual TLS 1.3 with the certificate of `name`."""
    pair = {"certificate_chain": {"filename": f"{bench.certs}/{name}.pem"},
            "private_key": {"filename": f"{bench.certs}/{name}.key"}}
    version = "TLSv1_3"
    return {"tls_certificates": [pair], "validation_context": {"trusted_ca": {"filename": f"{bench.certs}/ca.pem"}},
            "tls_params": {"tls_minimum_protocol_version": version, "tls_maximum_protocol_version": version},
            "alpn_protocols": [ALPN[protocol]]}
