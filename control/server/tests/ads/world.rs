//! A mesh with a bit of everything.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use outrigger_plan::protocol::Protocol;
use outrigger_plan::{
    Capture, Health, MeshTracing, NodeConfig, NodeKind, Planner, ProxyNode, Settings, Workload, WorkloadPort,
    World, parse_documents,
};
use outrigger_traffic::config::{
    AccessLog, AccessLogFormat, AccessLogSink, Comparison, EndpointAddress, Fraction, HeaderMatch,
    HeaderValueMatch, LogFilter, LogKind, Order,
};

pub(crate) fn workload(namespace: &str, service: &str, version: &str, host: u8) -> Workload {
    let labels = [("app", service), ("version", version)].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let port = |name: &str, number, protocol| WorkloadPort {
        name: name.into(),
        number,
        protocol,
        target_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        target_port: number,
        inbound_port: None,
    };
    Workload {
        instance_id: format!("{service}-{version}-{host}"),
        namespace: namespace.into(),
        service_account: service.into(),
        service: service.into(),
        labels: labels.into(),
        address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)),
        ports: vec![
            port("http", 8080, Protocol::Http),
            port("grpc", 9090, Protocol::Grpc),
            port("db", 5432, Protocol::Tcp),
        ],
        node_id: format!("{service}-{version}-{host}"),
        locality: outrigger_traffic::config::Locality {
            region: "eu".into(),
            zone: format!("z{}", host % 2),
            sub_zone: String::new(),
        },
        inbound_port: Some(15_008),
        outbound_port: Some(15_001),
        outbound_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        weight: u32::from(host),
        health: Health::Healthy,
        gateway: false,
    }
}

pub(crate) const RESOURCES: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b, namespace: demo}
spec:
  host: b
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    connectionPool:
      tcp: {maxConnections: 50, connectTimeout: 250ms, tcpKeepalive: {probes: 5, time: 30s, interval: 5s}, maxConnectionDuration: 1h}
      http: {http1MaxPendingRequests: 5, http2MaxRequests: 70, maxRequestsPerConnection: 1000, maxRetries: 9, idleTimeout: 33s, maxConcurrentStreams: 77}
    outlierDetection: {consecutive5xxErrors: 7, consecutiveGatewayErrors: 0, interval: 5s, baseEjectionTime: 400s, maxEjectionPercent: 66, minHealthPercent: 20, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 3}
    portLevelSettings:
    - {port: {number: 9090}, loadBalancer: {simple: RANDOM}, connectionPool: {http: {useClientProtocol: true}}}
  subsets:
  - {name: v1, labels: {version: v1}, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: DO_NOT_UPGRADE}}}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: b, namespace: demo, annotations: {outrigger.dev/retry-non-idempotent: "true"}}
spec:
  hosts: [b]
  http:
  - name: first
    match:
    - name: many
      uri: {regex: "/x/[0-9]+"}
      ignoreUriCase: true
      method: {exact: GET}
      scheme: {exact: http}
      authority: {prefix: b}
      headers: {x-user: {exact: jason}, x-any: {}}
      withoutHeaders: {x-not: {prefix: n}, x-gone: {}}
      queryParams: {q: {exact: "1"}}
    route:
    - {destination: {host: b, subset: v1}, weight: 3, headers: {request: {set: {x-s: "1", host: other.example.com}, add: {x-a: "2"}, remove: [x-r]}, response: {set: {x-t: "%PROTOCOL%"}}}}
    - {destination: {host: b, subset: v2}, weight: 1}
    timeout: 1.5s
    retries: {attempts: 3, perTryTimeout: 500ms, retryOn: "5xx,gateway-error,reset,retriable-4xx,503,cancelled,deadline-exceeded,internal,resource-exhausted,unavailable,envoy-ratelimited", backoff: 30ms, retryIgnorePreviousHosts: false}
    headers: {response: {remove: [server]}}
  - match: [{uri: {prefix: /moved}}]
    redirect: {uri: /new, authority: b.example.com, scheme: https, port: 8443, redirectCode: 308}
  - match: [{uri: {exact: /hello}}]
    directResponse: {status: 200, body: {string: hello}}
  - match: [{uri: {prefix: /api}}]
    rewrite: {uri: /, authority: rewritten.example.com}
    route: [{destination: {host: b}}]
    mirror: {host: b, subset: v2}
    mirrorPercentage: {value: 12.5}
  - match: [{uri: {prefix: /re/}}]
    rewrite: {uriRegexRewrite: {match: "^/re/(.*)$", rewrite: '/\1'}}
    route: [{destination: {host: b}}]
    mirrors: [{destination: {host: b, subset: v1}}, {destination: {host: b, subset: v2}, percentage: {value: 50}}]
  - route: [{destination: {host: b, subset: v2}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: demo}
spec:
  hosts: [api.example.com]
  ports: [{number: 443, name: https, protocol: HTTPS}, {number: 80, name: http, protocol: HTTP}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: one, namespace: demo}
spec: {hosts: [one.example.com], ports: [{number: 6379, name: tcp, protocol: TCP}], resolution: DNS_ROUND_ROBIN}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: outside, namespace: demo}
spec: {host: api.example.com, trafficPolicy: {portLevelSettings: [{port: {number: 443}, tls: {mode: MUTUAL, credentialName: cert, subjectAltNames: [api.example.com, "spiffe://x/y"]}}]}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: b, namespace: demo}
spec: {selector: {matchLabels: {app: b, version: v2}}, mtls: {mode: PERMISSIVE}}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: demo}
spec:
  jwtRules:
  - issuer: https://issuer.example.com/
    audiences: [us]
    jwksUri: https://issuer.example.com:8443/keys?a=b
    fromHeaders: [{name: x-token, prefix: "T "}]
    fromParams: [t]
    fromCookies: [c]
    outputPayloadToHeader: x-payload
    outputClaimToHeaders: [{header: x-sub, claim: sub}]
    forwardOriginalToken: true
    timeout: 3s
  - issuer: inside
    jwksUri: http://b.demo.mesh:8080/keys
  - issuer: written
    jwks: '{"keys": [{"kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB"}]}'
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tokens, namespace: demo}
spec:
  action: DENY
  rules:
  - from: [{source: {notRequestPrincipals: ["https://issuer.example.com/*", "*/ann"]}}]
    to: [{operation: {paths: [/private*]}}]
  - when:
    - {key: "request.auth.claims[groups][all]", notValues: [admin, "dev*"]}
    - {key: request.auth.audiences, values: [us]}
    - {key: request.auth.presenter, values: ["*"]}
    - {key: request.auth.principal, values: ["*"]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: b, namespace: demo}
spec:
  selector: {matchLabels: {app: b}}
  rules:
  - from:
    - source: {principals: ["*/sa/a"], notNamespaces: ["bank*"], ipBlocks: [10.0.0.0/8], notRemoteIpBlocks: ["2001:db8::/32"]}
    - source: {serviceAccounts: [a, shop/cart]}
    to: [{operation: {methods: [GET, "P*"], paths: ["/public/*", "*.html"], notPaths: ["/public/x"], hosts: ["b*"]}}]
    when:
    - {key: "request.headers[x-token]", values: ["*"], notValues: [bad]}
    - {key: connection.sni, values: ["outbound_*"]}
    - {key: destination.ip, values: [10.0.0.2]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: demo}
spec: {action: DENY, rules: [{from: [{source: {namespaces: [bank]}}]}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: demo}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 8443, name: https, protocol: HTTPS}, hosts: [demo.example.com], tls: {mode: MUTUAL, credentialName: cert, minProtocolVersion: TLSV1_3, subjectAltNames: [client.example.com]}}
  - {port: {number: 8443, name: mesh, protocol: HTTPS}, hosts: [mesh.example.com], tls: {mode: ISTIO_MUTUAL}}
  - {port: {number: 8080, name: http, protocol: HTTP}, hosts: ["*"], tls: {httpsRedirect: true}}
  - {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ["*"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: demo}
spec:
  hosts: ["*.example.com"]
  gateways: [edge]
  http: [{match: [{uri: {prefix: /a}}], route: [{destination: {host: a, port: {number: 8080}}}]}]
  tcp: [{match: [{port: 9000}], route: [{destination: {host: b, port: {number: 5432}}, weight: 1}, {destination: {host: b, subset: v2, port: {number: 5432}}, weight: 2}]}]
---
apiVersion: v1
kind: Secret
metadata: {name: cert, namespace: demo}
stringData: {cert: "-----BEGIN CERTIFICATE-----", key: "-----BEGIN PRIVATE KEY-----", cacert: "-----BEGIN CERTIFICATE-----"}
"#;

pub(crate) fn workloads() -> Vec<Workload> {
    let mut a = workload("demo", "a", "v1", 1);
    a.labels.insert("outrigger.dev/tcp-outbound".into(), "15432=b:5432".into());
    vec![a, workload("demo", "b", "v1", 2), workload("demo", "b", "v2", 3), workload("shop", "cart", "v1", 4)]
}

pub(crate) fn world(workloads: Vec<Workload>, text: &str) -> World {
    let json = serde_json::json!({"a_status": "%RESPONSE_CODE%", "nested": {"path": "%REQ(:PATH)%"}});
    let serde_json::Value::Object(json) = json else { panic!("an object") };
    let log = |sink, format| AccessLog { sink, format, filter: None };
    let settings = Settings {
        access_log: vec![
            log(AccessLogSink::Stdout, AccessLogFormat::Json(json)),
            log(AccessLogSink::Stderr, AccessLogFormat::Default),
            AccessLog {
                filter: Some(LogFilter::And(vec![
                    LogFilter::Or(vec![
                        LogFilter::Status(Comparison { is: Order::AtLeast, than: 500 }),
                        LogFilter::Duration(Comparison { is: Order::NotEqual, than: 1 }),
                        LogFilter::Flags(vec!["UF".into(), "UO".into()]),
                        LogFilter::GrpcStatus { statuses: vec![14], exclude: true },
                    ]),
                    LogFilter::NotHealthCheck,
                    LogFilter::Share(Fraction::from_percent(50)),
                    LogFilter::Kind { kinds: vec![LogKind::Request, LogKind::Connection], exclude: false },
                    LogFilter::Header(HeaderMatch {
                        name: "x-log".into(),
                        value: HeaderValueMatch::Present(true),
                        invert: true,
                        treat_missing_as_empty: false,
                    }),
                ])),
                ..log(AccessLogSink::Stdout, AccessLogFormat::Default)
            },
            log(AccessLogSink::File("/dev/null".into()), AccessLogFormat::Text("%RESPONSE_CODE%\n".into())),
        ],
        tracing: Some(MeshTracing {
            collector: EndpointAddress::Name("otel.example".into(), 4317),
            sampling: Fraction::from_millionths(12_500),
        }),
        ..Settings::default()
    };
    World {
        resources: parse_documents(text)
            .into_iter()
            .map(|o| Arc::new(o.unwrap_or_else(|errors| panic!("{errors:#?}"))))
            .collect(),
        workloads: workloads.into_iter().map(Arc::new).collect(),
        settings: Arc::new(settings),
    }
}

pub(crate) fn nodes(world: &World) -> Vec<ProxyNode> {
    let mut nodes: Vec<ProxyNode> =
        world.workloads.iter().map(|w| ProxyNode::sidecar(Arc::clone(w))).collect();
    if let Some(workload) = world.workloads.first() {
        let capture = Capture { outbound: true, dns_port: Some(15_053), forward_proxy_port: Some(15_080) };
        let node = ProxyNode::sidecar(Arc::clone(workload));
        nodes.push(ProxyNode { id: "captured".into(), capture: Some(capture), ..node });
    }
    let mut gateway = ProxyNode::without_workload("gw", NodeKind::Gateway, "demo", "gateway");
    gateway.labels.insert("istio".into(), "ingressgateway".into());
    nodes.push(gateway);
    let mut client = ProxyNode::without_workload("client", NodeKind::Proxyless, "demo", "client");
    client.flavour = outrigger_plan::Flavour::Grpc;
    nodes.push(client);
    nodes
}

pub(crate) fn planned(world: &World, node: &ProxyNode) -> NodeConfig {
    Planner::new(world.clone()).plan(node).unwrap_or_else(|errors| panic!("{errors:#?}"))
}
