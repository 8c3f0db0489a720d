//! What this adapter does not do is refused, not passed over.
//!
//! Each message is compared with one that has everything at its default except what is supported: a field that differs is
//! one that would have no effect. So a field that is new in the configuration is refused until somebody supports it.

use outrigger_traffic::config::{
    Action, Cluster, ClusterDiscovery, Config, ConfigError, FilterChain, FilterChainMatch, HashSource,
    HeaderEdits, HostRewrite, HttpConnectionManager, HttpUpstream, Listener, PathRewrite, RetryPolicy, Route,
    RouteAction, RouteConfig, RouteSource, Terminal, Thresholds, VirtualHost,
};
use outrigger_traffic::template::Template;
use serde::Serialize;
use serde_json::Value;

const REASON: &str = "is not done by the Pingora adapter";

/// Everything in a configuration that would have no effect here.
pub(crate) fn refusals(config: &Config) -> Vec<ConfigError> {
    let mut found = Refusals { resource: String::new(), errors: Vec::new() };
    for cluster in &config.clusters {
        found.resource = format!("cluster/{}", cluster.name);
        found.cluster(cluster);
    }
    for table in &config.route_configs {
        found.resource = format!("route_config/{}", table.name);
        found.table("", table);
    }
    for listener in &config.listeners {
        found.resource = format!("listener/{}", listener.name);
        found.listener(listener);
    }
    if let Some(secret) = config.secrets.first() {
        found.resource = format!("secret/{}", secret.name);
        found.refuse("name", REASON);
    }
    found.errors
}

struct Refusals {
    resource: String,
    errors: Vec<ConfigError>,
}

impl Refusals {
    fn refuse(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.errors.push(ConfigError::new(self.resource.clone(), path, reason));
    }

    /// Refuses the fields in which the two differ.
    fn differing<T: Serialize>(&mut self, at: &str, given: &T, supported: &T) {
        let (Ok(Value::Object(given)), Ok(Value::Object(supported))) =
            (serde_json::to_value(given), serde_json::to_value(supported))
        else {
            return self.refuse(at, "cannot be looked at");
        };
        for (field, value) in &given {
            if supported.get(field) != Some(value) {
                self.refuse(format!("{at}{field}"), REASON);
            }
        }
    }

    fn cluster(&mut self, given: &Cluster) {
        let mut fine = Cluster::new(given.name.clone(), given.discovery.clone());
        fine.alt_stat_name.clone_from(&given.alt_stat_name);
        fine.connect_timeout = given.connect_timeout;
        fine.lb_policy = given.lb_policy.clone();
        fine.healthy_panic_threshold = given.healthy_panic_threshold;
        fine.locality_lb = given.locality_lb;
        fine.zone_aware = given.zone_aware.clone();
        fine.subsets = given.subsets.clone();
        fine.slow_start = given.slow_start.clone();
        fine.outlier_detection = given.outlier_detection.clone();
        fine.labels.clone_from(&given.labels);
        fine.http.protocol = match given.http.protocol {
            HttpUpstream::Http2 => HttpUpstream::Http2,
            _ => fine.http.protocol,
        };
        let thresholds = |given: &Thresholds| Thresholds {
            max_requests: given.max_requests,
            max_retries: given.max_retries,
            retry_budget: given.retry_budget,
            track_remaining: given.track_remaining,
            ..Thresholds::default()
        };
        fine.circuit_breakers.default = thresholds(&given.circuit_breakers.default);
        fine.circuit_breakers.high = thresholds(&given.circuit_breakers.high);
        self.differing("", given, &fine);
        match given.discovery {
            ClusterDiscovery::Static(_) | ClusterDiscovery::Eds { .. } => {}
            _ => self.refuse("type", format!("only STATIC and EDS: finding hosts otherwise {REASON}")),
        }
    }

    fn listener(&mut self, given: &Listener) {
        let mut fine = Listener::new(given.name.clone(), given.address);
        fine.bind_to_port = given.bind_to_port;
        fine.traffic_direction = given.traffic_direction;
        fine.filter_chains.clone_from(&given.filter_chains);
        fine.default_filter_chain.clone_from(&given.default_filter_chain);
        self.differing("", given, &fine);
        let chains = given.filter_chains.iter().chain(&given.default_filter_chain);
        if chains.clone().count() != 1 {
            self.refuse("filter_chains", "there must be one: Pingora chooses by its own listeners");
        }
        for chain in chains {
            self.chain(chain);
        }
    }

    fn chain(&mut self, given: &FilterChain) {
        let fine = FilterChain {
            matches: FilterChainMatch::default(),
            tls: None,
            network_filters: Vec::new(),
            ..given.clone()
        };
        self.differing("filter_chains[0].", given, &fine);
        let Terminal::Http(manager) = &given.terminal else {
            return self.refuse("filter_chains[0].filters", format!("TCP {REASON}"));
        };
        let fine = HttpConnectionManager::new(manager.stat_prefix.clone(), manager.routes.clone());
        self.differing("filter_chains[0].http_connection_manager.", &**manager, &fine);
        if let RouteSource::Inline(table) = &manager.routes {
            self.table("filter_chains[0].http_connection_manager.route_config.", table);
        }
    }

    fn table(&mut self, at: &str, given: &RouteConfig) {
        let fine = RouteConfig { mirrors: Vec::new(), filters: None, ..given.clone() };
        self.differing(at, given, &fine);
        self.edits(&format!("{at}headers"), &given.headers);
        for (i, host) in given.virtual_hosts.iter().enumerate() {
            let at = format!("{at}virtual_hosts[{i}].");
            let host: &VirtualHost = host;
            let fine = VirtualHost {
                include_request_attempt_count: false,
                include_attempt_count_in_response: false,
                per_request_buffer_limit_bytes: None,
                rate_limits: Vec::new(),
                filters: None,
                mirrors: Vec::new(),
                ..host.clone()
            };
            self.differing(&at, host, &fine);
            self.edits(&format!("{at}headers"), &host.headers);
            self.retries(&at, host.retry_policy.as_ref());
            for (j, route) in host.routes.iter().enumerate() {
                self.route(&format!("{at}routes[{j}]."), route);
            }
        }
    }

    fn route(&mut self, at: &str, given: &Route) {
        let fine = Route {
            filters: None,
            per_request_buffer_limit_bytes: None,
            decorator: None,
            tracing: None,
            ..given.clone()
        };
        self.differing(at, given, &fine);
        if given.matches.tls.is_some() {
            self.refuse(format!("{at}match.tls_context"), REASON);
        }
        self.edits(&format!("{at}headers"), &given.headers);
        if let Action::Forward(action) = &given.action {
            self.action(&format!("{at}route."), action);
        }
    }

    fn action(&mut self, at: &str, given: &RouteAction) {
        let mut fine = RouteAction::to("");
        fine.cluster = given.cluster.clone();
        fine.cluster_not_found_status = given.cluster_not_found_status;
        fine.path_rewrite = given.path_rewrite.clone().filter(|to| !matches!(to, PathRewrite::Format(_)));
        fine.host_rewrite = given.host_rewrite.clone().filter(|to| !matches!(to, HostRewrite::Format(_)));
        fine.append_x_forwarded_host = given.append_x_forwarded_host;
        fine.timeout = given.timeout;
        fine.retry_policy = given.retry_policy.clone();
        fine.high_priority = given.high_priority;
        fine.hash_policy = given.hash_policy.clone();
        fine.metadata_match = given.metadata_match.clone();
        fine.split_header = given.split_header.clone();
        self.differing(at, given, &fine);
        self.retries(at, given.retry_policy.as_ref());
        for (i, policy) in given.hash_policy.iter().enumerate() {
            if let HashSource::Cookie(cookie) = &policy.source
                && cookie.ttl.is_some()
            {
                self.refuse(format!("{at}hash_policy[{i}].cookie.ttl"), REASON);
            }
        }
        if let outrigger_traffic::config::ClusterChoice::Weighted(shares) = &given.cluster {
            for (i, share) in shares.iter().enumerate() {
                self.edits(&format!("{at}weighted_clusters[{i}].headers"), &share.headers);
                if share.filters.is_some() {
                    self.refuse(format!("{at}weighted_clusters[{i}].typed_per_filter_config"), REASON);
                }
            }
        }
    }

    fn retries(&mut self, at: &str, given: Option<&RetryPolicy>) {
        if given.is_some_and(|policy| policy.per_try_idle_timeout.is_some()) {
            self.refuse(format!("{at}retry_policy.per_try_idle_timeout"), REASON);
        }
    }

    /// Texts with command operators need what only the engine knows.
    fn edits(&mut self, at: &str, given: &HeaderEdits) {
        for (field, edits) in
            [("request_headers_to_add", &given.request_add), ("response_headers_to_add", &given.response_add)]
        {
            for (i, edit) in edits.iter().enumerate() {
                if Template::parse(&edit.value).is_ok_and(|value| value.literal().is_none()) {
                    self.refuse(format!("{at}.{field}[{i}]"), format!("a command operator {REASON}"));
                }
            }
        }
    }
}
