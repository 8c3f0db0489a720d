//! What the demo's operator applies, in Istio's words.

use super::mesh::{NAMESPACE, PUBLIC_HOST};
use std::net::SocketAddr;

/// The gateway: TLS for end users, and the way from it to service A.
pub fn edge(gateway: SocketAddr, certificate_pem: &str, key_pem: &str) -> String {
    let (ip, port) = (gateway.ip(), gateway.port());
    let indent = |pem: &str| pem.trim_end().lines().map(|l| format!("    {l}\n")).collect::<String>();
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: shop-tls, namespace: {NAMESPACE}}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
{}  tls.key: |
{}---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: {NAMESPACE}}}
spec:
  selector: {{app: gateway}}
  servers:
  - port: {{number: {port}, name: https, protocol: HTTPS}}
    bind: {ip}
    hosts: [\"{PUBLIC_HOST}\"]
    tls: {{mode: SIMPLE, credentialName: shop-tls}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: shop, namespace: {NAMESPACE}}}
spec:
  hosts: [\"{PUBLIC_HOST}\"]
  gateways: [edge]
  http:
  - route:
    - destination: {{host: a.{NAMESPACE}.mesh, port: {{number: 80}}}}
",
        indent(certificate_pem),
        indent(key_pem)
    )
}

/// Subsets of service B by version.
pub fn subsets() -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: b, namespace: {NAMESPACE}}}
spec:
  host: b.{NAMESPACE}.mesh
  subsets:
  - name: v1
    labels: {{version: v1}}
  - name: v2
    labels: {{version: v2}}
"
    )
}

/// Shares of B's versions; `extra` is added to the route.
pub fn split(v1: u32, v2: u32, extra: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: b, namespace: {NAMESPACE}}}
spec:
  hosts: [b.{NAMESPACE}.mesh]
  http:
  - route:
    - destination: {{host: b.{NAMESPACE}.mesh, subset: v1}}
      weight: {v1}
    - destination: {{host: b.{NAMESPACE}.mesh, subset: v2}}
      weight: {v2}
{extra}"
    )
}

/// All instances of B alike.
pub fn whole() -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: b, namespace: {NAMESPACE}}}
spec:
  hosts: [b.{NAMESPACE}.mesh]
  http:
  - route:
    - destination: {{host: b.{NAMESPACE}.mesh}}
"
    )
}

/// B refuses A.
pub fn deny_a() -> String {
    format!(
        "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: no-a, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: b}}}}
  action: DENY
  rules:
  - from:
    - source: {{principals: [\"cluster.local/ns/{NAMESPACE}/sa/a\"]}}
"
    )
}
