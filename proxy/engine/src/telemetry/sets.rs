//! The stat sets: what is counted per listener, connection manager, TCP proxy, cluster and process.
//!
//! Names are Envoy's, so that dashboards made for it go on working. A name with a dot (`ssl.handshake`) becomes
//! one with an underscore in Prometheus.

use super::stats::stat_set;

stat_set! {
    /// Per listener; Envoy's `listener.<address>.`.
    pub struct ListenerStats {
        counter downstream_cx_total = "downstream_cx_total", "Connections accepted";
        gauge downstream_cx_active = "downstream_cx_active", "Connections open now";
        counter downstream_cx_destroy = "downstream_cx_destroy", "Connections closed";
        histogram downstream_cx_length = "downstream_cx_length_ms", "How long connections lasted";
        counter downstream_cx_overflow = "downstream_cx_overflow", "Connections refused by the limit of this listener";
        counter downstream_global_cx_overflow = "downstream_global_cx_overflow", "Connections refused by the limit of the proxy";
        counter downstream_cx_overload_reject = "downstream_cx_overload_reject", "Connections closed at once because memory runs out";
        counter downstream_accept_error = "downstream_accept_error", "Errors of accept, such as too many open files";
        gauge downstream_pre_cx_active = "downstream_pre_cx_active", "Connections whose first bytes are awaited";
        counter downstream_pre_cx_timeout = "downstream_pre_cx_timeout", "Connections whose first bytes did not come in time";
        counter downstream_listener_filter_error = "downstream_listener_filter_error", "Connections whose first bytes could not be understood";
        counter downstream_listener_filter_remote_close = "downstream_listener_filter_remote_close", "Connections closed by the peer before a filter chain was chosen";
        counter downstream_cx_transport_socket_connect_timeout = "downstream_cx_transport_socket_connect_timeout", "TLS handshakes that did not end in time";
        counter downstream_cx_redirected = "outrigger_downstream_cx_redirected", "Connections whose original destination was found";
        counter no_filter_chain_match = "no_filter_chain_match", "Connections that no filter chain was made for";
        counter ssl_handshake = "ssl.handshake", "TLS handshakes that succeeded";
        counter ssl_connection_error = "ssl.connection_error", "TLS handshakes that failed for another reason than the peer's certificate";
        counter ssl_session_reused = "ssl.session_reused", "TLS sessions that were resumed";
        counter ssl_no_certificate = "ssl.no_certificate", "TLS connections whose peer showed no certificate";
        counter ssl_fail_verify_no_cert = "ssl.fail_verify_no_cert", "TLS handshakes refused because the peer showed no certificate";
        counter ssl_fail_verify_error = "ssl.fail_verify_error", "TLS handshakes refused because the peer's certificate is not trusted";
        counter ssl_fail_verify_san = "ssl.fail_verify_san", "TLS handshakes refused because no name of the peer's certificate is expected";
        counter ssl_secret_missing = "server_ssl_socket_factory.downstream_context_secrets_not_ready", "Connections refused because a secret had not arrived";
        counter rbac_allowed = "rbac.allowed", "Connections that a network authorization filter allowed";
        counter rbac_denied = "rbac.denied", "Connections that a network authorization filter denied";
        counter rbac_evicted = "rbac.evicted", "Open connections closed because changed network rules deny them";
        counter downstream_cx_drain_time_over = "downstream_cx_drain_time_over", "Open connections closed because their listener or filter chain had gone and the drain time was over";
        counter rbac_shadow_allowed = "rbac.shadow_allowed", "Connections that shadow rules would allow";
        counter rbac_shadow_denied = "rbac.shadow_denied", "Connections that shadow rules would deny";
    }
}

stat_set! {
    /// Per connection manager; Envoy's `http.<stat_prefix>.`.
    pub struct HttpStats {
        counter downstream_cx_total = "downstream_cx_total", "Connections served as HTTP";
        gauge downstream_cx_active = "downstream_cx_active", "HTTP connections open now";
        counter downstream_cx_destroy = "downstream_cx_destroy", "HTTP connections closed";
        counter downstream_cx_destroy_local = "downstream_cx_destroy_local", "HTTP connections closed by this proxy";
        counter downstream_cx_destroy_remote = "downstream_cx_destroy_remote", "HTTP connections closed by the peer";
        counter downstream_cx_destroy_active_rq = "downstream_cx_destroy_active_rq", "HTTP connections closed while a request was served";
        counter downstream_cx_http1_total = "downstream_cx_http1_total", "HTTP/1 connections";
        gauge downstream_cx_http1_active = "downstream_cx_http1_active", "HTTP/1 connections open now";
        counter downstream_cx_http2_total = "downstream_cx_http2_total", "HTTP/2 connections";
        gauge downstream_cx_http2_active = "downstream_cx_http2_active", "HTTP/2 connections open now";
        counter downstream_cx_http2_flood = "downstream_cx_http2_flood", "HTTP/2 connections closed because the peer used up a limit of frames";
        counter downstream_cx_ssl_total = "downstream_cx_ssl_total", "HTTP connections over TLS";
        gauge downstream_cx_ssl_active = "downstream_cx_ssl_active", "HTTP connections over TLS open now";
        counter downstream_cx_upgrades_total = "downstream_cx_upgrades_total", "Connections upgraded, such as to WebSocket";
        gauge downstream_cx_upgrades_active = "downstream_cx_upgrades_active", "Upgraded connections open now";
        counter downstream_cx_protocol_error = "downstream_cx_protocol_error", "Connections that broke the protocol";
        histogram downstream_cx_length = "downstream_cx_length_ms", "How long HTTP connections lasted";
        counter downstream_cx_rx_bytes_total = "downstream_cx_rx_bytes_total", "Bytes received";
        counter downstream_cx_tx_bytes_total = "downstream_cx_tx_bytes_total", "Bytes sent";
        counter downstream_cx_drain_close = "downstream_cx_drain_close", "Connections closed because of draining";
        counter downstream_cx_idle_timeout = "downstream_cx_idle_timeout", "Connections closed because they were idle";
        counter downstream_cx_max_duration_reached = "downstream_cx_max_duration_reached", "Connections closed because of their age";
        counter downstream_cx_max_requests_reached = "downstream_cx_max_requests_reached", "Connections closed because of the number of their requests";
        counter downstream_rq_total = "downstream_rq_total", "Requests received";
        gauge downstream_rq_active = "downstream_rq_active", "Requests served now";
        counter downstream_rq_http1_total = "downstream_rq_http1_total", "HTTP/1 requests received";
        counter downstream_rq_http2_total = "downstream_rq_http2_total", "HTTP/2 requests received";
        counter downstream_rq_completed = "downstream_rq_completed", "Requests that got a whole response";
        counter downstream_rq_1xx = "downstream_rq_1xx", "Responses of class 1xx (as last answer, such as 101)";
        counter downstream_rq_2xx = "downstream_rq_2xx", "Responses of class 2xx";
        counter downstream_rq_3xx = "downstream_rq_3xx", "Responses of class 3xx";
        counter downstream_rq_4xx = "downstream_rq_4xx", "Responses of class 4xx";
        counter downstream_rq_5xx = "downstream_rq_5xx", "Responses of class 5xx";
        histogram downstream_rq_time = "downstream_rq_time", "Milliseconds from the first byte of a request to the last byte of its response";
        counter downstream_rq_rx_reset = "downstream_rq_rx_reset", "Requests reset by the peer";
        counter downstream_rq_tx_reset = "downstream_rq_tx_reset", "Requests reset by this proxy";
        counter downstream_rq_too_large = "downstream_rq_too_large", "Requests refused because of the size of their body";
        counter downstream_rq_too_many_premature_resets = "downstream_rq_too_many_premature_resets", "Connections closed because the peer reset too many streams";
        counter downstream_rq_failed_path_normalization = "downstream_rq_failed_path_normalization", "Requests refused because of their path";
        counter downstream_rq_redirected_with_normalized_path = "downstream_rq_redirected_with_normalized_path", "Requests redirected to their normalised path";
        counter downstream_rq_non_relative_path = "downstream_rq_non_relative_path", "Requests refused because their path is not absolute";
        counter downstream_rq_header_timeout = "downstream_rq_header_timeout", "Requests whose head did not arrive in time";
        counter downstream_rq_timeout = "downstream_rq_timeout", "Requests that did not arrive in time";
        counter downstream_rq_idle_timeout = "downstream_rq_idle_timeout", "Requests ended because nothing moved";
        counter downstream_rq_max_duration_reached = "downstream_rq_max_duration_reached", "Requests ended because of their age";
        counter downstream_rq_response_before_rq_complete = "downstream_rq_response_before_rq_complete", "Responses that ended before their request";
        counter downstream_rq_overload_close = "downstream_rq_overload_close", "Requests refused because memory runs out";
        counter downstream_cx_overload_disable_keepalive = "downstream_cx_overload_disable_keepalive", "Connections closed after a request because memory runs out";
        counter downstream_rq_ws_on_non_ws_route = "downstream_rq_ws_on_non_ws_route", "Upgrades refused by the route";
        counter no_route = "no_route", "Requests without a route";
        counter no_cluster = "no_cluster", "Requests whose cluster is not known";
        counter rq_direct_response = "rq_direct_response", "Requests answered by a direct response";
        counter rq_redirect = "rq_redirect", "Requests answered by a redirect";
        counter rq_total = "rq_total", "Requests routed";
        counter rq_reset_after_downstream_response_started = "rq_reset_after_downstream_response_started", "Responses broken off after their head was sent";
        counter rq_retry_skipped_request_not_complete = "rq_retry_skipped_request_not_complete", "Retries not made because the request was too large to be replayed";
        counter rq_retry_refused_not_idempotent = "rq_retry_refused_not_idempotent", "Retries not made because the application may have seen a request that is not idempotent";
        counter rbac_allowed = "rbac.allowed", "Requests that an authorization filter allowed";
        counter rbac_denied = "rbac.denied", "Requests that an authorization filter denied";
        counter rbac_shadow_allowed = "rbac.shadow_allowed", "Requests that shadow rules would allow";
        counter rbac_shadow_denied = "rbac.shadow_denied", "Requests that shadow rules would deny";
        counter fault_delays_injected = "fault.delays_injected", "Requests delayed by the fault filter";
        counter fault_aborts_injected = "fault.aborts_injected", "Requests answered by the fault filter";
        counter fault_response_rl_injected = "fault.response_rl_injected", "Responses slowed down by the fault filter";
        counter bandwidth_limit_request_enabled = "http_bandwidth_limit.request_enabled", "Requests that a bandwidth limit looked at";
        counter bandwidth_limit_response_enabled = "http_bandwidth_limit.response_enabled", "Responses that a bandwidth limit looked at";
        counter bandwidth_limit_request_enforced = "http_bandwidth_limit.request_enforced", "Times that a request's body had to wait for a bandwidth limit";
        counter bandwidth_limit_response_enforced = "http_bandwidth_limit.response_enforced", "Times that a response's body had to wait for a bandwidth limit";
        counter bandwidth_limit_request_allowed_total_size = "http_bandwidth_limit.request_allowed_total_size", "Bytes of requests that passed a bandwidth limit";
        counter bandwidth_limit_response_allowed_total_size = "http_bandwidth_limit.response_allowed_total_size", "Bytes of responses that passed a bandwidth limit";
        gauge bandwidth_limit_request_pending = "http_bandwidth_limit.request_pending", "Requests whose bodies pass a bandwidth limit now";
        gauge bandwidth_limit_response_pending = "http_bandwidth_limit.response_pending", "Responses whose bodies pass a bandwidth limit now";
        counter fault_faults_overflow = "fault.faults_overflow", "Faults not put in, because too many were under way";
        counter compressor_compressed = "compressor.compressed", "Responses that were compressed";
        counter compressor_not_compressed = "compressor.not_compressed", "Responses that a compressor left as they were";
        counter compressor_request_compressed = "compressor.request.compressed", "Requests that were compressed";
        counter decompressor_decompressed = "decompressor.response.decompressed", "Responses that were decompressed";
        counter decompressor_request_decompressed = "decompressor.request.decompressed", "Requests that were decompressed";
        counter buffer_rq_too_large = "buffer.rq_too_large", "Requests larger than the buffer filter holds";
        counter cors_origin_valid = "cors.origin_valid", "Requests of other origins that are let in";
        counter cors_origin_invalid = "cors.origin_invalid", "Requests of other origins that are not let in";
        counter csrf_missing_source_origin = "csrf.missing_source_origin", "Changing requests that did not say where they come from";
        counter csrf_request_invalid = "csrf.request_invalid", "Changing requests from pages of other hosts";
        counter csrf_request_valid = "csrf.request_valid", "Changing requests from pages of the same host";
        counter jwt_authn_allowed = "jwt_authn.allowed", "Requests with the tokens that they need";
        counter jwt_authn_denied = "jwt_authn.denied", "Requests without a token that they need";
        counter jwt_authn_cors_preflight_bypassed = "jwt_authn.cors_preflight_bypassed", "Preflights that need no token";
        counter jwt_authn_jwks_fetch_success = "jwt_authn.jwks_fetch_success", "Key sets fetched";
        counter jwt_authn_jwks_fetch_failed = "jwt_authn.jwks_fetch_failed", "Key sets that could not be fetched";
        counter ext_authz_ok = "ext_authz.ok", "Requests that an authorization service let pass";
        counter ext_authz_denied = "ext_authz.denied", "Requests that an authorization service refused";
        counter ext_authz_error = "ext_authz.error", "Requests about which an authorization service did not answer";
        counter ext_authz_disabled = "ext_authz.disabled", "Requests that no authorization service was asked about";
        counter ext_authz_failure_mode_allowed = "ext_authz.failure_mode_allowed", "Requests that passed because an authorization service did not answer";
        counter ratelimit_ok = "ratelimit.ok", "Requests within the limits of a rate limit service";
        counter ratelimit_over_limit = "ratelimit.over_limit", "Requests above a limit of a rate limit service";
        counter ratelimit_error = "ratelimit.error", "Requests about which a rate limit service did not answer";
        counter ratelimit_failure_mode_allowed = "ratelimit.failure_mode_allowed", "Requests that passed because a rate limit service did not answer";
        counter set_metadata_overwrite_denied = "set_metadata.overwrite_denied", "Metadata that was there already and stayed as it was";
        counter dynamic_metadata_overflow = "dynamic_metadata_overflow", "Metadata left out because a request has too much of it";
        counter local_rate_limit_enabled = "http_local_rate_limit.enabled", "Requests that a local rate limit looked at";
        counter local_rate_limit_ok = "http_local_rate_limit.ok", "Requests within a local rate limit";
        counter local_rate_limit_rate_limited = "http_local_rate_limit.rate_limited", "Requests above a local rate limit";
        counter local_rate_limit_enforced = "http_local_rate_limit.enforced", "Requests refused by a local rate limit";
        counter stateful_session_routed = "stateful_session.routed", "Requests that went to the host of their session";
        counter stateful_session_failed_open = "stateful_session.failed_open", "Requests whose session had no host, or not the one that answered";
        counter stateful_session_failed_closed = "stateful_session.failed_closed", "Requests refused because the host of their session cannot be used";
        counter stateful_session_no_session = "stateful_session.no_session", "Requests to which no session belongs";
        counter dropped_headers_with_underscores = "dropped_headers_with_underscores", "Header fields left out because of underscores in their names";
        counter requests_rejected_with_underscores_in_headers = "requests_rejected_with_underscores_in_headers", "Requests refused because of underscores in names of header fields";
        counter tracing_random_sampling = "tracing.random_sampling", "Traces started here";
        counter tracing_client_enabled = "tracing.client_enabled", "Traces asked for by the client";
        counter tracing_not_traceable = "tracing.not_traceable", "Requests not sampled";
    }
}

stat_set! {
    /// Per TCP proxy; Envoy's `tcp.<stat_prefix>.`.
    pub struct TcpStats {
        counter downstream_cx_total = "downstream_cx_total", "Connections served";
        gauge downstream_cx_active = "downstream_cx_active", "Connections open now";
        counter downstream_cx_no_route = "downstream_cx_no_route", "Connections without a cluster";
        counter downstream_cx_rx_bytes_total = "downstream_cx_rx_bytes_total", "Bytes received from downstream";
        counter downstream_cx_tx_bytes_total = "downstream_cx_tx_bytes_total", "Bytes sent downstream";
        counter idle_timeout = "idle_timeout", "Connections closed because they were idle";
        counter max_downstream_connection_duration = "max_downstream_connection_duration", "Connections closed because of their age";
    }
}

stat_set! {
    /// Per cluster; Envoy's `cluster.<name>.`. Membership, breaker and ejection figures come from the cluster itself.
    pub struct ClusterStats {
        counter upstream_cx_total = "upstream_cx_total", "Connections made";
        gauge upstream_cx_active = "upstream_cx_active", "Connections open now";
        counter upstream_cx_http1_total = "upstream_cx_http1_total", "HTTP/1 connections made";
        counter upstream_cx_http2_total = "upstream_cx_http2_total", "HTTP/2 connections made";
        counter upstream_cx_connect_fail = "upstream_cx_connect_fail", "Connection attempts that failed";
        counter upstream_cx_connect_timeout = "upstream_cx_connect_timeout", "Connection attempts that took too long";
        counter upstream_cx_connect_attempts_exceeded = "upstream_cx_connect_attempts_exceeded", "TCP proxy connections whose attempts were used up";
        counter upstream_cx_overflow = "upstream_cx_overflow", "Connections refused by the circuit breaker";
        counter upstream_cx_pool_overflow = "upstream_cx_pool_overflow", "Connection pools refused by the limit";
        counter upstream_cx_idle_timeout = "upstream_cx_idle_timeout", "Connections closed because they were idle";
        counter upstream_cx_max_requests = "upstream_cx_max_requests", "Connections closed because of the number of their requests";
        counter upstream_cx_max_duration_reached = "upstream_cx_max_duration_reached", "Connections closed because of their age";
        counter upstream_cx_protocol_error = "upstream_cx_protocol_error", "Connections whose host broke the protocol";
        counter upstream_cx_destroy = "upstream_cx_destroy", "Connections closed";
        counter upstream_cx_destroy_local = "upstream_cx_destroy_local", "Connections closed by this proxy";
        counter upstream_cx_destroy_remote = "upstream_cx_destroy_remote", "Connections closed by the host";
        counter upstream_cx_destroy_with_active_rq = "upstream_cx_destroy_with_active_rq", "Connections closed while a request was served";
        counter upstream_cx_close_notify = "upstream_cx_close_notify", "Connections closed by connection: close or GOAWAY";
        counter upstream_cx_none_healthy = "upstream_cx_none_healthy", "Picks that found no healthy host";
        counter upstream_cx_rx_bytes_total = "upstream_cx_rx_bytes_total", "Bytes received";
        counter upstream_cx_tx_bytes_total = "upstream_cx_tx_bytes_total", "Bytes sent";
        histogram upstream_cx_connect = "upstream_cx_connect_ms", "How long connecting took, TLS included";
        histogram upstream_cx_length = "upstream_cx_length_ms", "How long connections lasted";
        counter upstream_rq_total = "upstream_rq_total", "Requests sent";
        gauge upstream_rq_active = "upstream_rq_active", "Requests served now";
        counter upstream_rq_completed = "upstream_rq_completed", "Requests that got a response";
        counter upstream_rq_1xx = "upstream_rq_1xx", "Responses of class 1xx (as last answer, such as 101)";
        counter upstream_rq_2xx = "upstream_rq_2xx", "Responses of class 2xx";
        counter upstream_rq_3xx = "upstream_rq_3xx", "Responses of class 3xx";
        counter upstream_rq_4xx = "upstream_rq_4xx", "Responses of class 4xx";
        counter upstream_rq_5xx = "upstream_rq_5xx", "Responses of class 5xx";
        histogram upstream_rq_time = "upstream_rq_time", "Milliseconds from a request to the end of its response";
        counter upstream_rq_pending_total = "upstream_rq_pending_total", "Requests that waited for a connection";
        gauge upstream_rq_pending_active = "upstream_rq_pending_active", "Requests waiting for a connection now";
        counter upstream_rq_pending_overflow = "upstream_rq_pending_overflow", "Requests refused by the circuit breaker";
        counter upstream_rq_pending_failure_eject = "upstream_rq_pending_failure_eject", "Requests that failed because their connection could not be made";
        counter upstream_rq_cancelled = "upstream_rq_cancelled", "Requests given up before a connection was there";
        counter upstream_rq_timeout = "upstream_rq_timeout", "Requests that took too long";
        counter upstream_rq_max_duration_reached = "upstream_rq_max_duration_reached", "Requests ended because of their age";
        counter upstream_rq_per_try_timeout = "upstream_rq_per_try_timeout", "Attempts that took too long";
        counter upstream_rq_rx_reset = "upstream_rq_rx_reset", "Requests reset by the host";
        counter upstream_rq_tx_reset = "upstream_rq_tx_reset", "Requests reset by this proxy";
        counter upstream_rq_retry = "upstream_rq_retry", "Retries";
        counter upstream_rq_retry_backoff_exponential = "upstream_rq_retry_backoff_exponential", "Retries after an exponential back-off";
        counter upstream_rq_retry_backoff_ratelimited = "upstream_rq_retry_backoff_ratelimited", "Retries after a back-off that the host asked for";
        counter upstream_rq_retry_limit_exceeded = "upstream_rq_retry_limit_exceeded", "Requests not retried because the number of attempts was used up";
        counter retry_or_shadow_abandoned = "retry_or_shadow_abandoned", "Copies of requests not made because the body was larger than what is kept";
        counter upstream_internal_redirect_succeeded_total = "upstream_internal_redirect_succeeded_total", "Redirects that were followed here";
        counter upstream_internal_redirect_failed_total = "upstream_internal_redirect_failed_total", "Redirects of a followed status that went to the client all the same";
        counter upstream_rq_retry_success = "upstream_rq_retry_success", "Retries that succeeded";
        counter upstream_rq_retry_overflow = "upstream_rq_retry_overflow", "Retries refused by the circuit breaker or the budget";
        counter lb_healthy_panic = "lb_healthy_panic", "Picks made among all hosts because too few are healthy";
        counter lb_subsets_selected = "lb_subsets_selected", "Picks made in the subset that the route demands";
        counter lb_subsets_fallback = "lb_subsets_fallback", "Picks made by the fallback because no subset fits";
        counter lb_subsets_fallback_panic = "lb_subsets_fallback_panic", "Picks made among all hosts because the fallback found none";
        counter lb_zone_routing_all_directly = "lb_zone_routing_all_directly", "Picks made in the proxy's own zone, as all are";
        counter lb_zone_routing_sampled = "lb_zone_routing_sampled", "Picks made in the proxy's own zone, as some are";
        counter lb_zone_routing_cross_zone = "lb_zone_routing_cross_zone", "Picks made in another zone";
        counter lb_zone_no_capacity_left = "lb_zone_no_capacity_left", "Picks made in any zone because none has hosts to spare";
        counter ejections_enforced_total = "outlier_detection.ejections_enforced_total", "Hosts ejected";
        counter ejections_overflow = "outlier_detection.ejections_overflow", "Hosts not ejected because too many are out";
        counter ejections_detected_consecutive_5xx = "outlier_detection.ejections_detected_consecutive_5xx", "Hosts found to deserve ejection for consecutive responses of class 5xx";
        counter ejections_enforced_consecutive_5xx = "outlier_detection.ejections_enforced_consecutive_5xx", "Hosts ejected for consecutive responses of class 5xx";
        counter ejections_detected_consecutive_gateway_failure = "outlier_detection.ejections_detected_consecutive_gateway_failure", "Hosts found to deserve ejection for consecutive gateway failures";
        counter ejections_enforced_consecutive_gateway_failure = "outlier_detection.ejections_enforced_consecutive_gateway_failure", "Hosts ejected for consecutive gateway failures";
        counter ejections_detected_consecutive_local_origin_failure = "outlier_detection.ejections_detected_consecutive_local_origin_failure", "Hosts found to deserve ejection for consecutive failures to reach them";
        counter ejections_enforced_consecutive_local_origin_failure = "outlier_detection.ejections_enforced_consecutive_local_origin_failure", "Hosts ejected for consecutive failures to reach them";
        counter ejections_detected_success_rate = "outlier_detection.ejections_detected_success_rate", "Hosts found to deserve ejection for a success rate far below the mean";
        counter ejections_enforced_success_rate = "outlier_detection.ejections_enforced_success_rate", "Hosts ejected for a success rate far below the mean";
        counter ejections_detected_local_origin_success_rate = "outlier_detection.ejections_detected_local_origin_success_rate", "Hosts found to deserve ejection for a rate of failures to reach them far above the mean";
        counter ejections_enforced_local_origin_success_rate = "outlier_detection.ejections_enforced_local_origin_success_rate", "Hosts ejected for a rate of failures to reach them far above the mean";
        counter ejections_detected_failure_percentage = "outlier_detection.ejections_detected_failure_percentage", "Hosts found to deserve ejection for too large a share of failures";
        counter ejections_enforced_failure_percentage = "outlier_detection.ejections_enforced_failure_percentage", "Hosts ejected for too large a share of failures";
        counter ejections_detected_local_origin_failure_percentage = "outlier_detection.ejections_detected_local_origin_failure_percentage", "Hosts found to deserve ejection for too large a share of failures to reach them";
        counter ejections_enforced_local_origin_failure_percentage = "outlier_detection.ejections_enforced_local_origin_failure_percentage", "Hosts ejected for too large a share of failures to reach them";
        counter health_check_attempt = "health_check.attempt", "Health checks made";
        counter health_check_success = "health_check.success", "Health checks that succeeded";
        counter health_check_failure = "health_check.failure", "Health checks that failed, for whatever reason";
        counter health_check_passive_failure = "health_check.passive_failure", "Hosts that asked to be left out in answers to requests";
        counter health_check_network_failure = "health_check.network_failure", "Health checks that got no answer";
        counter health_check_verify_cluster = "health_check.verify_cluster", "Health checks that compared the name of the service";
        counter membership_change = "membership_change", "Changes of the host set";
        counter update_attempt = "update_attempt", "Attempts to learn the hosts by DNS";
        counter update_success = "update_success", "Attempts to learn the hosts by DNS that succeeded";
        counter update_failure = "update_failure", "Attempts to learn the hosts by DNS that failed";
        counter update_empty = "update_empty", "Host sets received without a host";
        counter original_dst_host_invalid = "original_dst_host_invalid", "Connections and requests without a valid original destination";
        counter original_dst_unlisted = "outrigger_original_dst_unlisted", "Connections to destinations that the full table of destinations did not take";
        counter ssl_handshake = "ssl.handshake", "TLS handshakes that succeeded";
        counter ssl_connection_error = "ssl.connection_error", "TLS handshakes that failed for another reason than the host's certificate";
        counter ssl_session_reused = "ssl.session_reused", "TLS sessions that were resumed";
        counter ssl_fail_verify_error = "ssl.fail_verify_error", "TLS handshakes refused because the host's certificate is not trusted";
        counter ssl_fail_verify_san = "ssl.fail_verify_san", "TLS handshakes refused because no name of the host's certificate is expected";
        counter ssl_secret_missing = "client_ssl_socket_factory.upstream_context_secrets_not_ready", "Connections refused because a secret had not arrived";
    }
}

stat_set! {
    /// Of what is looked for before a filter chain is chosen; over all listeners, as in Envoy.
    pub struct ListenerFilterStats {
        counter tls_found = "tls_inspector.tls_found", "Connections that began with TLS";
        counter tls_not_found = "tls_inspector.tls_not_found", "Connections that began with something else than TLS";
        counter alpn_found = "tls_inspector.alpn_found", "ClientHellos with ALPN";
        counter alpn_not_found = "tls_inspector.alpn_not_found", "ClientHellos without ALPN";
        counter sni_found = "tls_inspector.sni_found", "ClientHellos with a server name";
        counter sni_not_found = "tls_inspector.sni_not_found", "ClientHellos without a server name";
        counter http10_found = "http_inspector.http10_found", "Connections that began with HTTP/1.0";
        counter http11_found = "http_inspector.http11_found", "Connections that began with HTTP/1.1";
        counter http2_found = "http_inspector.http2_found", "Connections that began with HTTP/2";
        counter http_not_found = "http_inspector.http_not_found", "Connections that began with something else than HTTP";
        counter proxy_v1_found = "proxy_proto.versions.v1.found", "PROXY headers of version 1";
        counter proxy_v1_disallowed = "proxy_proto.versions.v1.disallowed", "Connections closed because version 1 is disallowed";
        counter proxy_v1_error = "proxy_proto.versions.v1.error", "Connections closed because of a malformed PROXY header of version 1";
        counter proxy_v2_found = "proxy_proto.versions.v2.found", "PROXY headers of version 2";
        counter proxy_v2_disallowed = "proxy_proto.versions.v2.disallowed", "Connections closed because version 2 is disallowed";
        counter proxy_v2_error = "proxy_proto.versions.v2.error", "Connections closed because of a malformed PROXY header of version 2";
        counter forward_proxy_connect = "outrigger_forward_proxy.connect", "Destinations named by HTTP CONNECT";
        counter forward_proxy_socks5 = "outrigger_forward_proxy.socks5", "Destinations named by SOCKS5";
        counter forward_proxy_refused = "outrigger_forward_proxy.refused", "Named destinations that were refused";
        counter proxy_not_found_allowed = "proxy_proto.not_found_allowed", "Connections without a PROXY header that were let in";
        counter proxy_not_found_disallowed = "proxy_proto.not_found_disallowed", "Connections closed because they had no PROXY header";
    }
}

stat_set! {
    /// Per DNS listener; Envoy's `dns_filter.<stat_prefix>.`.
    pub struct DnsStats {
        counter downstream_rx_queries = "downstream_rx_queries", "Questions received";
        counter downstream_rx_invalid_queries = "downstream_rx_invalid_queries", "Questions that are none";
        counter query_parsing_failure = "query_parsing_failure", "Messages that could not be read";
        counter downstream_tx_responses = "downstream_tx_responses", "Answers sent";
        counter a_record_queries = "a_record_queries", "Questions for IPv4 addresses";
        counter aaaa_record_queries = "aaaa_record_queries", "Questions for IPv6 addresses";
        counter unsupported_queries = "unsupported_queries", "Questions of a class or kind that is not answered";
        counter known_domain_queries = "known_domain_queries", "Questions for names of the table";
        counter local_a_record_answers = "local_a_record_answers", "IPv4 addresses answered from the table";
        counter local_aaaa_record_answers = "local_aaaa_record_answers", "IPv6 addresses answered from the table";
        counter external_a_record_queries = "external_a_record_queries", "Questions for IPv4 addresses that others know";
        counter external_a_record_answers = "external_a_record_answers", "IPv4 addresses answered by others";
        counter external_aaaa_record_queries = "external_aaaa_record_queries", "Questions for IPv6 addresses that others know";
        counter external_aaaa_record_answers = "external_aaaa_record_answers", "IPv6 addresses answered by others";
        counter external_other_record_queries = "outrigger_external_other_record_queries", "Other questions that others know";
        counter unanswered_queries = "unanswered_queries", "Questions that nobody answered";
        counter cache_hits = "outrigger_dns_cache_hits", "Answers of others that were still at hand";
        counter pending_overflow = "outrigger_dns_pending_overflow", "Questions refused because too many waited for others";
        counter lookup_timeouts = "outrigger_dns_lookup_timeouts", "Questions that others did not answer in time";
        counter lookup_failures = "outrigger_dns_lookup_failures", "Questions that others refused or could not answer";
    }
}

stat_set! {
    /// Of the process; Envoy's `server.`.
    pub struct ServerStats {
        gauge total_connections = "total_connections", "Downstream connections open now";
        gauge concurrency = "concurrency", "Data workers";
        counter config_applied = "outrigger_config_applied", "Configurations that took effect";
        counter config_rejected = "outrigger_config_rejected", "Configurations that were refused";
        gauge config_version = "outrigger_config_version", "Number of the configuration in use";
        counter access_log_dropped = "outrigger_access_log_dropped", "Access log lines lost because the writer was too slow";
        counter access_log_write_errors = "outrigger_access_log_write_errors", "Access log writes that failed";
        counter spans_dropped = "outrigger_spans_dropped", "Spans lost because the exporter was too slow";
        counter spans_exported = "outrigger_spans_queued", "Spans handed to the exporter";
        counter series_overflow = "outrigger_series_overflow", "Requests counted in the overflow series because there were too many label sets";
        counter defects = "outrigger_defects", "Broken assumptions inside the proxy; every one is a bug";
    }
}

impl ClusterStats {
    /// Counts a response by its class.
    pub fn count_status(&self, status: u16) {
        self.upstream_rq_completed.inc();
        match status / 100 {
            1 => self.upstream_rq_1xx.inc(),
            2 => self.upstream_rq_2xx.inc(),
            3 => self.upstream_rq_3xx.inc(),
            4 => self.upstream_rq_4xx.inc(),
            5 => self.upstream_rq_5xx.inc(),
            _ => {}
        }
    }
}
