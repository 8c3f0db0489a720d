//! Fields of the official API that are accepted without effect, each with the reason why that is harmless.
//!
//! The rule for being here: a proxy that ignores the field routes, secures, limits and answers every request exactly
//! as one that honours it, apart from informative headers that nothing depends on. Whoever sets one is told so by a
//! notice. Everything else that we lack is refused.

/// One accepted field.
#[derive(Clone, Copy, Debug)]
pub struct Ignored {
    /// Full name of the message.
    pub message: &'static str,
    /// Name of the field.
    pub field: &'static str,
    /// Why it is harmless.
    pub reason: &'static str,
}

const fn ignored(message: &'static str, field: &'static str, reason: &'static str) -> Ignored {
    Ignored { message, field, reason }
}

const NAMES: &str = "it only changes names of metrics";
const LABELS: &str = "it is only read by extensions that are not there";
const CODER: &str = "it only tunes the coder, whose output reads the same";
const PROCESS: &str = "it is about the process of Envoy, not about traffic";

/// The whole list.
pub const SAFE_TO_IGNORE: &[Ignored] = &[
    ignored("envoy.config.bootstrap.v3.Bootstrap", "stats_config", "it only selects and names metrics"),
    ignored("envoy.config.bootstrap.v3.Bootstrap", "stats_flush_interval", "metrics are pulled, not flushed"),
    ignored("envoy.config.bootstrap.v3.Bootstrap", "stats_flush_on_admin", "metrics are always current"),
    ignored("envoy.config.bootstrap.v3.Bootstrap", "flags_path", PROCESS),
    ignored("envoy.config.bootstrap.v3.Bootstrap", "watchdog", PROCESS),
    ignored("envoy.config.bootstrap.v3.Bootstrap", "watchdogs", PROCESS),
    ignored("envoy.config.bootstrap.v3.Bootstrap", "enable_dispatcher_stats", PROCESS),
    ignored(
        "envoy.config.bootstrap.v3.Admin",
        "access_log",
        "requests to the admin server are in the proxy's own log",
    ),
    ignored(
        "envoy.config.bootstrap.v3.Admin",
        "access_log_path",
        "requests to the admin server are in the proxy's own log",
    ),
    ignored("envoy.config.bootstrap.v3.Admin", "profile_path", PROCESS),
    ignored("envoy.config.core.v3.Node", "extensions", "the control service is told of no extensions"),
    ignored("envoy.config.core.v3.Node", "user_agent_build_version", "the proxy reports its own version"),
    ignored("envoy.config.listener.v3.Listener", "stat_prefix", NAMES),
    ignored("envoy.config.listener.v3.Listener", "metadata", LABELS),
    ignored("envoy.config.listener.v3.FilterChain", "metadata", LABELS),
    ignored("envoy.config.route.v3.RouteConfiguration", "metadata", LABELS),
    ignored("envoy.config.route.v3.Route", "stat_prefix", NAMES),
    ignored("envoy.config.route.v3.VirtualHost", "virtual_clusters", "it only adds metrics"),
    ignored("envoy.config.cluster.v3.Cluster", "track_cluster_stats", "it only adds metrics"),
    ignored("envoy.config.cluster.v3.Cluster", "track_timeout_budgets", "it only adds metrics"),
    ignored(
        "envoy.config.cluster.v3.Cluster",
        "ignore_health_on_host_removal",
        "hosts that left a cluster are never kept",
    ),
    ignored(
        "envoy.config.cluster.v3.Cluster.CommonLbConfig",
        "update_merge_window",
        "every update is applied at once, with the same result",
    ),
    ignored(
        "envoy.extensions.filters.http.router.v3.Router",
        "start_child_span",
        "attempts have spans of their own unless `spawn_upstream_span` says otherwise",
    ),
    ignored("envoy.extensions.compression.gzip.compressor.v3.Gzip", "memory_level", CODER),
    ignored("envoy.extensions.compression.gzip.compressor.v3.Gzip", "compression_strategy", CODER),
    ignored("envoy.extensions.compression.gzip.compressor.v3.Gzip", "chunk_size", CODER),
    ignored("envoy.extensions.compression.gzip.decompressor.v3.Gzip", "chunk_size", CODER),
    ignored("envoy.extensions.compression.brotli.compressor.v3.Brotli", "encoder_mode", CODER),
    ignored("envoy.extensions.compression.brotli.compressor.v3.Brotli", "input_block_bits", CODER),
    ignored("envoy.extensions.compression.brotli.compressor.v3.Brotli", "chunk_size", CODER),
    ignored(
        "envoy.extensions.compression.brotli.compressor.v3.Brotli",
        "disable_literal_context_modeling",
        CODER,
    ),
    ignored(
        "envoy.extensions.compression.brotli.decompressor.v3.Brotli",
        "disable_ring_buffer_reallocation",
        CODER,
    ),
    ignored("envoy.extensions.compression.brotli.decompressor.v3.Brotli", "chunk_size", CODER),
    ignored("envoy.extensions.filters.http.router.v3.Router", "dynamic_stats", "it only switches metrics"),
    ignored("envoy.extensions.filters.http.rbac.v3.RBAC", "rules_stat_prefix", NAMES),
    ignored("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", "stat_prefix", NAMES),
    ignored(
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "charge_cluster_response_stats",
        "it only adds metrics",
    ),
    ignored("envoy.extensions.filters.http.ratelimit.v3.RateLimit", "stat_prefix", NAMES),
    ignored("envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication", "stat_prefix", NAMES),
    ignored(
        "envoy.extensions.filters.http.jwt_authn.v3.JwtProvider",
        "jwt_cache_config",
        "every token is verified, which only costs time",
    ),
    ignored("envoy.extensions.filters.http.header_to_metadata.v3.Config", "stat_prefix", NAMES),
    ignored("envoy.extensions.filters.network.rbac.v3.RBAC", "shadow_rules_stat_prefix", NAMES),
    ignored("envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol", "stat_prefix", NAMES),
    ignored(
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        "initial_read_buffer_size",
        "the buffer has a fixed, sufficient size",
    ),
];

/// Why a field may be ignored, or `None` where it must be refused.
pub fn reason(message: &str, field: &str) -> Option<&'static str> {
    SAFE_TO_IGNORE.iter().find(|i| i.message == message && i.field == field).map(|i| i.reason)
}

#[cfg(test)]
mod tests {
    use super::SAFE_TO_IGNORE;

    #[test]
    fn every_ignored_field_is_official_and_not_ours() {
        for i in SAFE_TO_IGNORE {
            let message =
                crate::pool().get_message_by_name(i.message).unwrap_or_else(|| panic!("{}", i.message));
            assert!(message.get_field_by_name(i.field).is_none(), "{}.{} is implemented", i.message, i.field);
            assert!(
                crate::official::field_by_name(i.message, i.field).is_some(),
                "{}.{}",
                i.message,
                i.field
            );
        }
    }
}
