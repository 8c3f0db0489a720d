//! Tokens at an edge gateway and a sidecar: the JWT filter, the rules behind it, and the clusters with keys.

mod world;

use outrigger_traffic::authz::{AuthzView, CompiledRbac};
use outrigger_traffic::config::{
    ClusterDiscovery, Config, FilterChain, FilterConfig, HttpFilter, JwtAuthn, JwtRequirement, Rbac, SanType,
    ValidationSource,
};
use outrigger_traffic::metadata::Metadata;
use outrigger_traffic::view::{FieldView, RequestView};
use serde_json::{Value, json};
use world::*;

const TOKENS: &str = r#"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: demo}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 8080, name: http, protocol: HTTP}, bind: 127.0.0.1, hosts: ["*"]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a, namespace: demo}
spec: {hosts: ["*"], gateways: [edge], http: [{route: [{destination: {host: a}}]}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: people, namespace: demo}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  jwtRules:
  - issuer: https://login.example.com/
    audiences: [shop]
    jwksUri: https://login.example.com/keys
    outputClaimToHeaders: [{header: X-User, claim: sub}]
  - issuer: inside
    jwksUri: http://b.demo.mesh:8080/keys
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: people, namespace: demo}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  action: DENY
  rules:
  - from: [{source: {notRequestPrincipals: ["*"]}}]
    to: [{operation: {paths: ["/account*"]}}]
  - when: [{key: "request.auth.claims[groups]", notValues: [staff]}]
    to: [{operation: {paths: ["/admin*"]}}]
"#;

fn edge() -> Config {
    let world = world(demo(), TOKENS);
    planned(&world, &gateway("demo")).config
}

fn filters(chain: &FilterChain) -> &[HttpFilter] {
    &http(chain).http_filters
}

fn authn(config: &Config) -> (&JwtAuthn, &Rbac) {
    let listener = listener(config, "gateway|127.0.0.1|8080");
    match filters(&listener.filter_chains[0]) {
        [
            HttpFilter { config: FilterConfig::Jwt(authn), .. },
            HttpFilter { config: FilterConfig::Rbac(rbac), .. },
        ] => (authn, rbac),
        other => panic!("{other:#?}"),
    }
}

#[test]
fn gateway_checks_tokens_before_rules() {
    let config = edge();
    let (authn, _) = authn(&config);
    let [(_, Some(JwtRequirement::Any(any)))] = authn.rules.as_slice() else { panic!("{:#?}", authn.rules) };
    assert_eq!(any.len(), 3, "either issuer's token, or no bad one");
    let provider = &authn.providers["demo/people/0"];
    assert_eq!(
        (provider.issuer.as_str(), provider.audiences.as_slice()),
        ("https://login.example.com/", &["shop".to_owned()][..])
    );
    assert_eq!(provider.claim_to_headers, [("x-user".to_owned(), "sub".to_owned())]);
    assert!(!provider.forward && authn.bypass_cors_preflight);
    let remote = |name: &str| authn.providers[name].remote_jwks.clone().unwrap().target;
    let outside = remote("demo/people/0");
    assert_eq!(
        (outside.authority.as_str(), outside.path.as_str(), outside.https),
        ("login.example.com", "/keys", true)
    );
    let cluster =
        |name: &str| config.clusters.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("{name}"));
    let made = cluster(&outside.cluster);
    assert!(matches!(made.discovery, ClusterDiscovery::StrictDns { .. }));
    let tls = made.tls.as_ref().unwrap();
    let Some(ValidationSource::Inline(validation)) = &tls.validation else { panic!("{tls:?}") };
    assert!(validation.system_roots && tls.sni == "login.example.com");
    assert_eq!(validation.sans[0].kind, SanType::Dns);
    let inside = remote("demo/people/1");
    assert_eq!(inside.cluster, "outbound|8080||b.demo.mesh");
    assert!(cluster(&inside.cluster).tls.is_some(), "a service of the mesh is reached by mutual TLS");
}

struct Get<'a>(&'a str);

impl FieldView for Get<'_> {
    fn header(&self, _: &[u8]) -> Option<&[u8]> {
        None
    }
    fn for_each_header(&self, _: &[u8], _: &mut dyn FnMut(&[u8])) {}
}

impl RequestView for Get<'_> {
    fn method(&self) -> &[u8] {
        b"GET"
    }
    fn scheme(&self) -> &[u8] {
        b"https"
    }
    fn authority(&self) -> &[u8] {
        b"shop"
    }
    fn path(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[test]
fn rules_ask_what_the_token_says() {
    let config = edge();
    let rbac = CompiledRbac::new(authn(&config).1, &mut |path, reason| panic!("{path}: {reason}"));
    let allowed = |path: &str, claims: Option<Value>| {
        let mut metadata = Metadata::default();
        if let Some(claims) = claims {
            assert!(metadata.put("envoy.filters.http.jwt_authn", "payload", claims));
        }
        let address = "127.0.0.1:1".parse().unwrap();
        let view = AuthzView {
            destination: address,
            direct_remote: address.ip(),
            remote: address.ip(),
            server_name: None,
            peer: None,
            request: Some(&Get(path)),
            metadata: Some(&metadata),
        };
        rbac.check(&view).allowed
    };
    let token =
        |groups: Value| Some(json!({"iss": "https://login.example.com/", "sub": "ann", "groups": groups}));
    for (path, claims, expected) in [
        ("/", None, true),
        ("/account", None, false),
        ("/account", token(json!([])), true),
        ("/account", Some(json!({"iss": "x"})), false),
        ("/admin", None, false),
        ("/admin", token(json!(["guest"])), false),
        ("/admin", token(json!(["guest", "staff"])), true),
        ("/admin", token(json!("staff")), true),
    ] {
        assert_eq!(allowed(path, claims.clone()), expected, "{path} {claims:?}");
    }
}

#[test]
fn sidecar_of_other_labels_checks_no_tokens() {
    let world = world(demo(), TOKENS);
    let config = planned(&world, &sidecar(&world, "a-v1-1")).config;
    let chains = config.listeners.iter().flat_map(|listener| &listener.filter_chains);
    let managers = chains.filter_map(|chain| match &chain.terminal {
        outrigger_traffic::config::Terminal::Http(http) => Some(http),
        outrigger_traffic::config::Terminal::Tcp(_) => None,
    });
    assert!(managers.flat_map(|http| &http.http_filters).all(|f| !matches!(f.config, FilterConfig::Jwt(_))));
}
