//! The aggregated discovery service (ADS), as a client.
//!
//! [`session`] is the protocol without I/O: what is subscribed, held, acknowledged and refused. [`stream`] carries it
//! over one gRPC stream, delta or state of the world, and comes back with jittered back-off when the stream ends.

pub mod session;
pub mod stream;

use serde::{Deserialize, Serialize};

/// The resource types that the proxy asks for, in make-before-break order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// `envoy.config.cluster.v3.Cluster` (CDS).
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
    Endpoints,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS).
    Secret,
    /// `envoy.config.listener.v3.Listener` (LDS).
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration` (RDS).
    RouteConfig,
}

impl Kind {
    /// Every kind, in make-before-break order: what is pointed to comes before what points to it.
    pub const ALL: [Self; 5] =
        [Self::Cluster, Self::Endpoints, Self::Secret, Self::Listener, Self::RouteConfig];

    /// The type URL on the wire.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::RouteConfig => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The kind of a type URL.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.type_url() == url)
    }

    /// Word for logs, and prefix of [`outrigger_traffic::config::ConfigError::resource`].
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Endpoints => "endpoints",
            Self::Secret => "secret",
            Self::Listener => "listener",
            Self::RouteConfig => "route_config",
        }
    }

    /// Whether every resource of the kind is wanted (wildcard) or only named ones.
    pub const fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}
