//! Every route, once: the router and the OpenAPI document are both made from this table.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodRouter, delete, get, post, put};

use super::{Api, attestation, auth, ca, host, openapi, operator, probe, proxy, resource, token};

/// Largest request body, in bytes; the planner's own limit for one text.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// The one route that is meant to take long.
pub const WAIT: &str = "/api/v1/wait";

/// Where a parameter stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the path.
    Path,
    /// Behind the question mark, optional.
    Query,
}

/// A parameter of a route.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Where it stands.
    pub place: Place,
    /// JSON schema type.
    pub kind: &'static str,
    /// What it does.
    pub about: &'static str,
}

/// One route.
pub struct Route {
    /// Lower case.
    pub method: &'static str,
    /// With `{parameters}`.
    pub path: &'static str,
    /// Unique name of the operation.
    pub operation: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Its parameters.
    pub parameters: &'static [Parameter],
    /// What it takes, as a media type and a description.
    pub body: Option<(&'static str, &'static str)>,
    /// What it answers.
    pub answer: &'static str,
    /// Whether it needs no token.
    pub public: bool,
    /// What serves it.
    pub service: MethodRouter<Arc<Api>>,
}

const fn path(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, place: Place::Path, kind: "string", about }
}

const fn query(name: &'static str, kind: &'static str, about: &'static str) -> Parameter {
    Parameter { name, place: Place::Query, kind, about }
}

const DRY_RUN: Parameter = query("dryRun", "boolean", "Check and show what would change, store nothing.");
const NAMESPACE: Parameter = query("namespace", "string", "Only of this namespace.");
const KIND: Parameter = path("kind", "Kind, plural or short form: VirtualService, virtualservices, vs.");
const NAMED: [Parameter; 3] = [KIND, path("namespace", "Namespace."), path("name", "Name.")];

const ACCOUNT: [Parameter; 2] = [path("namespace", "Namespace."), path("serviceAccount", "Service account.")];

/// All routes.
#[allow(clippy::too_many_lines, reason = "a table")]
pub fn table() -> Vec<Route> {
    let route = |method, path, operation, about, answer, service| Route {
        method,
        path,
        operation,
        about,
        parameters: &[],
        body: None,
        answer,
        public: false,
        service,
    };
    vec![
        Route {
            parameters: &[DRY_RUN],
            body: Some(("application/yaml", "Resources: YAML with one or more documents, or JSON.")),
            ..route(
                "post",
                "/api/v1/apply",
                "apply",
                "Create or change resources, all of them or none. Each is checked, and compiled for every proxy it concerns, before it is stored.",
                "What became of each resource, and the revision to wait for.",
                post(resource::apply),
            )
        },
        Route {
            parameters: &[NAMESPACE],
            ..route(
                "get",
                "/api/v1/resources",
                "listResources",
                "All resources.",
                "A list of resources.",
                get(resource::list_all),
            )
        },
        Route {
            parameters: &[KIND, NAMESPACE],
            ..route(
                "get",
                "/api/v1/resources/{kind}",
                "listResourcesOfKind",
                "All resources of a kind.",
                "A list of resources.",
                get(resource::list),
            )
        },
        Route {
            parameters: &NAMED,
            ..route(
                "get",
                "/api/v1/resources/{kind}/{namespace}/{name}",
                "getResource",
                "One resource.",
                "The resource.",
                get(resource::get),
            )
        },
        Route {
            parameters: &const {
                let version = query("resourceVersion", "string", "Delete only if this is still its version.");
                [KIND, path("namespace", "Namespace."), path("name", "Name."), DRY_RUN, version]
            },
            ..route(
                "delete",
                "/api/v1/resources/{kind}/{namespace}/{name}",
                "deleteResource",
                "Delete a resource, if every proxy can do without it.",
                "What was deleted, and the revision to wait for.",
                delete(resource::delete),
            )
        },
        Route {
            parameters: &const {
                [
                    query("version", "integer", "Revision to wait for, as apply and delete gave it."),
                    query("timeout", "integer", "Seconds to wait at most; default 30, at most 600."),
                ]
            },
            ..route(
                "get",
                WAIT,
                "wait",
                "Wait until every connected proxy has acknowledged a revision.",
                "Whether they have, and who has not.",
                get(proxy::wait),
            )
        },
        route(
            "get",
            "/api/v1/proxies",
            "listProxies",
            "Every proxy: the version it holds, ACK or NACK, lag.",
            "A list of proxies.",
            get(proxy::list),
        ),
        Route {
            parameters: &const {
                [path(
                    "id",
                    "Node id, or NAMESPACE/SERVICE-ACCOUNT/NODE-ID where several identities use the same.",
                )]
            },
            ..route(
                "get",
                "/api/v1/proxies/{id}/config",
                "getProxyConfig",
                "What a proxy is to hold. Private keys are left out.",
                "Its version and configuration.",
                get(proxy::config),
            )
        },
        Route {
            parameters: &[NAMESPACE],
            ..route(
                "get",
                "/api/v1/workloads",
                "listWorkloads",
                "Workloads: those under a lease, and those that sources found.",
                "A list of workloads.",
                get(proxy::workloads),
            )
        },
        route(
            "get",
            "/api/v1/sources",
            "listSources",
            "Discovery sources: whether each is up to date, how old what is known is, what cannot be used, and what ECS and the registrations do not agree about.",
            "A list of sources.",
            get(proxy::sources),
        ),
        Route {
            body: Some((
                "application/json",
                "namespace, serviceAccount, uses (default 1), ttlSeconds (default 3600), host (one that was made: what the token gives is bound to it). services, labels (key to values, none: any) and gateway, when any is given, become the grant of the service account: what its workloads may say of themselves.",
            )),
            ..route(
                "post",
                "/api/v1/tokens",
                "createJoinToken",
                "Make a join token for a service account. It is shown this once.",
                "The token, and the grant of the service account.",
                post(token::create),
            )
        },
        route(
            "get",
            "/api/v1/tokens",
            "listJoinTokens",
            "Join tokens, without their secrets.",
            "A list of tokens.",
            get(token::list),
        ),
        Route {
            parameters: &const { [path("id", "Id of the token.")] },
            ..route(
                "delete",
                "/api/v1/tokens/{id}",
                "deleteJoinToken",
                "Withdraw a join token.",
                "Its id.",
                delete(token::delete),
            )
        },
        Route {
            parameters: &const { [path("name", "Name of the host.")] },
            body: Some(("application/json", "addresses: those its workloads may announce; default: any.")),
            ..route(
                "put",
                "/api/v1/hosts/{name}",
                "putHost",
                "Make a host, for which join tokens can then be made, or change it. One that was revoked may join again.",
                "The host.",
                put(host::put),
            )
        },
        route(
            "get",
            "/api/v1/hosts",
            "listHosts",
            "Hosts, those too that were revoked.",
            "A list of hosts.",
            get(host::list),
        ),
        Route {
            parameters: &const { [path("name", "Name of the host.")] },
            ..route(
                "delete",
                "/api/v1/hosts/{name}",
                "revokeHost",
                "Revoke a host: its join tokens are withdrawn, its workloads leave the mesh, and no certificate that it was given opens anything here any more.",
                "The host, and what was withdrawn.",
                delete(host::revoke),
            )
        },
        route(
            "get",
            "/api/v1/grants",
            "listGrants",
            "What service accounts may say of their workloads, where it was ever set.",
            "A list of grants.",
            get(token::grants),
        ),
        route(
            "get",
            "/api/v1/attestation-rules",
            "listAttestationRules",
            "Which proofs (roles of AWS, service accounts of Kubernetes) may become which identity.",
            "A list of rules.",
            get(attestation::list),
        ),
        Route {
            parameters: &ACCOUNT,
            body: Some((
                "application/json",
                "aws: a list of account and role; kubernetes: a list of cluster (name of the discovery source), namespace and serviceAccount.",
            )),
            ..route(
                "put",
                "/api/v1/attestation-rules/{namespace}/{serviceAccount}",
                "putAttestationRule",
                "Replace the rule of a service account.",
                "The rule.",
                put(attestation::put),
            )
        },
        Route {
            parameters: &ACCOUNT,
            ..route(
                "delete",
                "/api/v1/attestation-rules/{namespace}/{serviceAccount}",
                "deleteAttestationRule",
                "Remove the rule of a service account: no proof gives this identity any more.",
                "Whose rule.",
                delete(attestation::delete),
            )
        },
        Route {
            body: Some((
                "application/json",
                "description: who it is for; role: admin (default) or viewer, who may only look.",
            )),
            ..route(
                "post",
                "/api/v1/operator-tokens",
                "createOperatorToken",
                "Make a token for this API. It is shown this once.",
                "The token.",
                post(operator::create),
            )
        },
        route(
            "get",
            "/api/v1/operator-tokens",
            "listOperatorTokens",
            "Tokens for this API, without their secrets.",
            "A list of tokens.",
            get(operator::list),
        ),
        Route {
            parameters: &const { [path("id", "Id of the token.")] },
            ..route(
                "delete",
                "/api/v1/operator-tokens/{id}",
                "deleteOperatorToken",
                "Withdraw a token for this API. The last one of an administrator cannot be withdrawn.",
                "Its id.",
                delete(operator::delete),
            )
        },
        route(
            "get",
            "/api/v1/ca",
            "getAuthority",
            "The certificate authority: root, trust bundle, signing CAs.",
            "The authority.",
            get(ca::show),
        ),
        Route {
            body: Some((
                "application/json",
                "propagationSeconds: how long the new signing CA is trusted before it signs; default the life of a workload certificate. root: exchange the root too. rootOverlapSeconds: how long the old root is known after that; default 30 days.",
            )),
            ..route(
                "post",
                "/api/v1/ca/rotate",
                "rotateAuthority",
                "Begin the exchange of the signing CA, or of the root and the signing CA.",
                "The authority.",
                post(ca::rotate),
            )
        },
        Route {
            public: true,
            ..route(
                "get",
                "/openapi.json",
                "getOpenApi",
                "This document.",
                "OpenAPI 3.1.",
                get(openapi::serve),
            )
        },
        Route {
            public: true,
            ..route("get", "/healthz", "getHealth", "Whether the process works.", "ok", get(probe::health))
        },
        Route {
            public: true,
            ..route("get", "/readyz", "getReadiness", "Whether the store answers.", "ok", get(probe::ready))
        },
        Route {
            public: true,
            ..route(
                "get",
                "/metrics",
                "getMetrics",
                "Metrics for Prometheus.",
                "Text format 0.0.4.",
                get(probe::metrics),
            )
        },
    ]
}

/// The router.
pub fn router(api: Arc<Api>) -> Router {
    let (mut open, mut guarded) = (Router::new(), Router::new());
    for route in table() {
        if route.public {
            open = open.route(route.path, route.service);
        } else {
            guarded = guarded.route(route.path, route.service);
        }
    }
    let guard = axum::middleware::from_fn_with_state(Arc::clone(&api), auth::require);
    guarded
        .route_layer(guard)
        .merge(open)
        .fallback(probe::nothing_here)
        .layer(axum::middleware::from_fn(auth::bound))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(api)
}
