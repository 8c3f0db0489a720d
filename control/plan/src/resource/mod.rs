//! What operators write: Istio's API, read strictly.
//!
//! Reading order: [`shape`] (which fields there are) · [`read`] (how values are taken and problems kept) · [`document`]
//! (texts into [`Object`]s) · one file per kind.

pub mod authorization_policy;
pub mod destination_rule;
pub mod document;
pub mod gateway;
pub mod peer_authentication;
pub mod read;
pub mod request_authentication;
pub mod secret;
pub mod service_entry;
pub mod shape;
pub mod virtual_service;
pub mod workload_entry;
pub mod workload_group;

use std::collections::BTreeMap;

use outrigger_traffic::config::ConfigError;
use serde_json::Value;

pub use authorization_policy::AuthorizationPolicy;
pub use destination_rule::DestinationRule;
pub use document::{DEFAULT_NAMESPACE, parse_documents};
pub use gateway::Gateway;
pub use peer_authentication::PeerAuthentication;
pub use request_authentication::RequestAuthentication;
pub use secret::Secret;
pub use service_entry::ServiceEntry;
pub use virtual_service::VirtualService;
pub use workload_entry::WorkloadEntry;
pub use workload_group::WorkloadGroup;

/// Kinds of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `security.istio.io` AuthorizationPolicy.
    AuthorizationPolicy,
    /// `networking.istio.io` DestinationRule.
    DestinationRule,
    /// `networking.istio.io` Gateway.
    Gateway,
    /// `security.istio.io` PeerAuthentication.
    PeerAuthentication,
    /// `security.istio.io` RequestAuthentication.
    RequestAuthentication,
    /// `v1` Secret, for the certificates of gateways.
    Secret,
    /// `networking.istio.io` ServiceEntry.
    ServiceEntry,
    /// `networking.istio.io` VirtualService.
    VirtualService,
    /// `networking.istio.io` WorkloadEntry.
    WorkloadEntry,
    /// `networking.istio.io` WorkloadGroup.
    WorkloadGroup,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::AuthorizationPolicy,
        Self::DestinationRule,
        Self::Gateway,
        Self::PeerAuthentication,
        Self::RequestAuthentication,
        Self::Secret,
        Self::ServiceEntry,
        Self::VirtualService,
        Self::WorkloadEntry,
        Self::WorkloadGroup,
    ];

    /// As written in `kind:`.
    pub fn name(self) -> &'static str {
        match self {
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::DestinationRule => "DestinationRule",
            Self::Gateway => "Gateway",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::RequestAuthentication => "RequestAuthentication",
            Self::Secret => "Secret",
            Self::ServiceEntry => "ServiceEntry",
            Self::VirtualService => "VirtualService",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::WorkloadGroup => "WorkloadGroup",
        }
    }

    /// The group of its `apiVersion`; empty for core kinds.
    pub fn group(self) -> &'static str {
        match self {
            Self::AuthorizationPolicy | Self::PeerAuthentication | Self::RequestAuthentication => {
                "security.istio.io"
            }
            Self::Secret => "",
            Self::DestinationRule
            | Self::Gateway
            | Self::ServiceEntry
            | Self::VirtualService
            | Self::WorkloadEntry
            | Self::WorkloadGroup => "networking.istio.io",
        }
    }

    /// Finds a kind by its name, its plural or its short form, without regard to case (`vs`, `virtualservices`).
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        Self::ALL.into_iter().find(|kind| {
            let name = kind.name().to_ascii_lowercase();
            let plural = match name.strip_suffix('y') {
                Some(stem) if !name.ends_with("ay") => format!("{stem}ies"),
                _ => format!("{name}s"),
            };
            lower == name || lower == plural || lower == kind.short()
        })
    }

    /// Its short form on the command line.
    pub fn short(self) -> &'static str {
        match self {
            Self::AuthorizationPolicy => "ap",
            Self::DestinationRule => "dr",
            Self::Gateway => "gw",
            Self::PeerAuthentication => "pa",
            Self::RequestAuthentication => "ra",
            Self::Secret => "secret",
            Self::ServiceEntry => "se",
            Self::VirtualService => "vs",
            Self::WorkloadEntry => "we",
            Self::WorkloadGroup => "wg",
        }
    }
}

/// Which resource, and what is said about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Unique within kind and namespace.
    pub name: String,
    /// Where it belongs.
    pub namespace: String,
    /// For selectors and people.
    pub labels: BTreeMap<String, String>,
    /// For people and extensions.
    pub annotations: BTreeMap<String, String>,
    /// The version the writer saw, for optimistic concurrency.
    pub resource_version: Option<String>,
}

/// What a resource asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// Who may call.
    AuthorizationPolicy(AuthorizationPolicy),
    /// How a service is called.
    DestinationRule(Box<DestinationRule>),
    /// Where the mesh can be entered.
    Gateway(Gateway),
    /// Whether callers must be authenticated.
    PeerAuthentication(PeerAuthentication),
    /// Which tokens requests may bring.
    RequestAuthentication(RequestAuthentication),
    /// A certificate.
    Secret(Secret),
    /// A service that does not register itself.
    ServiceEntry(ServiceEntry),
    /// Where requests go.
    VirtualService(VirtualService),
    /// A workload that does not register itself.
    WorkloadEntry(WorkloadEntry),
    /// What registered workloads have in common.
    WorkloadGroup(WorkloadGroup),
}

/// A resource that was read without problems.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name and what is said about it.
    pub metadata: Metadata,
    /// What it asks for.
    pub spec: Spec,
    /// As it was written, with the namespace filled in and what servers add (`status`, `managedFields`) left out. This
    /// is what is stored and shown; reading it again gives the same object.
    pub value: Value,
}

impl Object {
    /// Reads one document. A missing namespace becomes [`DEFAULT_NAMESPACE`].
    ///
    /// *Errors*: every problem found.
    pub fn from_value(value: Value) -> Result<Self, Vec<ConfigError>> {
        document::read_object(value, DEFAULT_NAMESPACE)
    }

    /// As in `VirtualService/demo/b`: how errors name it.
    pub fn label(&self) -> String {
        format!("{}/{}/{}", self.kind.name(), self.metadata.namespace, self.metadata.name)
    }
}
