//! The kinds of resources that a proxy follows: those that our control service sends, and those that only others send.

/// A kind of resource, in make-before-break order: what is pointed to comes before what points to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `envoy.service.runtime.v3.Runtime` (RTDS).
    Runtime,
    /// `envoy.config.cluster.v3.Cluster` (CDS).
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
    Endpoints,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS).
    Secret,
    /// `envoy.config.core.v3.TypedExtensionConfig` (ECDS).
    Extension,
    /// `envoy.config.listener.v3.Listener` (LDS).
    Listener,
    /// `envoy.config.route.v3.ScopedRouteConfiguration` (SRDS).
    Scope,
    /// `envoy.config.route.v3.RouteConfiguration` (RDS).
    RouteConfig,
}

/// Stands for every name of a kind, where a source is asked for all it has.
pub const EVERY: &str = "*";

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Self; 8] = [
        Self::Runtime,
        Self::Cluster,
        Self::Endpoints,
        Self::Secret,
        Self::Extension,
        Self::Listener,
        Self::Scope,
        Self::RouteConfig,
    ];

    /// The type URL on the wire.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Runtime => "type.googleapis.com/envoy.service.runtime.v3.Runtime",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Extension => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Scope => "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration",
            Self::RouteConfig => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The kind of a type URL; `None` for a type that is not followed.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.type_url() == url)
    }

    /// Word for logs and error paths, as in `cluster/NAME`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Cluster => "cluster",
            Self::Endpoints => "endpoints",
            Self::Secret => "secret",
            Self::Extension => "extension",
            Self::Listener => "listener",
            Self::Scope => "scope",
            Self::RouteConfig => "route_config",
        }
    }

    /// Whether a request without names asks for all of the kind (xDS: CDS and LDS only).
    pub const fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }

    /// Whether resources of this kind are no part of the configuration by themselves, but of the meaning of others.
    pub const fn is_ingredient(self) -> bool {
        matches!(self, Self::Runtime | Self::Extension | Self::Scope)
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn every_type_url_is_a_message_of_ours_and_leads_back() {
        for kind in Kind::ALL {
            let name = kind.type_url().strip_prefix(outrigger_api::TYPE_URL_PREFIX).unwrap();
            assert!(
                outrigger_api::pool().get_message_by_name(name.trim_start_matches('/')).is_some(),
                "{name}"
            );
            assert_eq!(Kind::from_type_url(kind.type_url()), Some(kind));
        }
        assert_eq!(Kind::from_type_url("type.googleapis.com/envoy.config.core.v3.Node"), None);
        assert!(Kind::ALL.is_sorted());
    }
}
