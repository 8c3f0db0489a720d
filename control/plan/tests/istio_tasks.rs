//! What people paste from Istio's task pages: each resource is accepted and compiles for every proxy it concerns, or is
//! refused by the field that has no effect here yet. The resources are our own, made like those of the pages named.

#[path = "istio_tasks/security.rs"]
mod security;
mod world;

use outrigger_plan::{Planner, ProxyNode, parse_documents};
use world::*;

/// What should become of a resource.
#[derive(Clone, Copy)]
enum Expect {
    Accepted,
    /// With a problem that contains this: the path and the reason.
    Refused(&'static str),
}

use Expect::{Accepted, Refused};

const VS: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\n";
const DR: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n";
const SE: &str = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n";
const GW: &str = "apiVersion: networking.istio.io/v1\nkind: Gateway\n";
const AP: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n";
const PA: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n";

/// Services of the tasks, in the namespaces the pages use.
fn services() -> Vec<outrigger_plan::Workload> {
    let mut all = vec![
        workload("default", "productpage", "v1", 1),
        workload("default", "reviews", "v1", 2),
        workload("default", "reviews", "v2", 3),
        workload("default", "reviews", "v3", 4),
        workload("default", "ratings", "v1", 5),
        workload("default", "httpbin", "v1", 6),
        workload("default", "httpbin", "v2", 7),
        workload("default", "curl", "v1", 8),
    ];
    for (version, host) in [("v1", 9), ("v2", 10)] {
        let mut echo = workload("default", "tcp-echo", version, host);
        echo.ports = vec![port("tcp", 9000, outrigger_plan::protocol::Protocol::Tcp)];
        all.push(echo);
    }
    all
}

/// Everything wrong with the resource, where anything is: by itself, or for a proxy.
fn problems(text: &str) -> Vec<String> {
    let refused: Vec<String> = parse_documents(text)
        .into_iter()
        .filter_map(Result::err)
        .flatten()
        .map(|error| error.to_string())
        .collect();
    if !refused.is_empty() {
        return refused;
    }
    let world = world(services(), text);
    let mut nodes: Vec<ProxyNode> = world.workloads.iter().map(|w| sidecar(&world, &w.instance_id)).collect();
    for kind in ["ingressgateway", "egressgateway"] {
        let mut node = gateway("default");
        node.labels.insert("istio".into(), kind.into());
        nodes.push(node);
    }
    let planner = Planner::new(world);
    nodes.iter().filter_map(|node| planner.plan(node).err()).flatten().map(|e| e.to_string()).collect()
}

/// What it is called, its head, the rest of it, and what should become of it.
type Task = (&'static str, &'static str, &'static str, Expect);

fn check(tasks: &[Task]) {
    let mut wrong = Vec::new();
    for (page, head, rest, expect) in tasks {
        let found = problems(&format!("{head}{rest}"));
        match expect {
            Accepted if found.is_empty() => {}
            Refused(reason) if found.iter().any(|problem| problem.contains(reason)) => {}
            Accepted => wrong.push(format!("{page}: should be accepted: {found:#?}")),
            Refused(reason) => wrong.push(format!("{page}: should be refused for {reason:?}: {found:#?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn traffic_management_tasks() {
    check(TRAFFIC);
}

const TRAFFIC: &[Task] = &[
    (
        "request routing: all v1",
        VS,
        "metadata: {name: reviews}\nspec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}}]}]}",
        Accepted,
    ),
    (
        "request routing: by user",
        VS,
        "metadata: {name: reviews}\nspec: {hosts: [reviews], http: [{match: [{headers: {end-user: {exact: jason}}}], route: [{destination: {host: reviews, subset: v2}}]}, {route: [{destination: {host: reviews, subset: v1}}]}]}",
        Accepted,
    ),
    (
        "request routing: by path and query",
        VS,
        "metadata: {name: reviews}\nspec: {hosts: [reviews], http: [{match: [{uri: {prefix: /v2}, queryParams: {debug: {exact: '1'}}, method: {exact: GET}}, {uri: {regex: '/r/[0-9]+'}, ignoreUriCase: true}], rewrite: {uri: /}, route: [{destination: {host: reviews.default.svc.cluster.local, port: {number: 8080}}}]}]}",
        Accepted,
    ),
    (
        "subsets",
        DR,
        "metadata: {name: reviews}\nspec: {host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}]}",
        Accepted,
    ),
    (
        "fault injection: delay",
        VS,
        "metadata: {name: ratings}\nspec: {hosts: [ratings], http: [{fault: {delay: {percentage: {value: 100.0}, fixedDelay: 7s}}, route: [{destination: {host: ratings}}]}]}",
        Accepted,
    ),
    (
        "fault injection: abort",
        VS,
        "metadata: {name: ratings}\nspec: {hosts: [ratings], http: [{fault: {abort: {percentage: {value: 100.0}, httpStatus: 500}}, route: [{destination: {host: ratings}}]}]}",
        Accepted,
    ),
    (
        "traffic shifting",
        VS,
        "metadata: {name: reviews}\nspec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}, weight: 50}, {destination: {host: reviews, subset: v3}, weight: 50}]}]}",
        Accepted,
    ),
    (
        "TCP traffic shifting",
        VS,
        "metadata: {name: tcp-echo}\nspec: {hosts: ['*'], gateways: [tcp-echo-gateway], tcp: [{match: [{port: 31400}], route: [{destination: {host: tcp-echo, port: {number: 9000}, subset: v1}, weight: 80}, {destination: {host: tcp-echo, port: {number: 9000}, subset: v2}, weight: 20}]}]}",
        Accepted,
    ),
    (
        "TCP traffic shifting: gateway",
        GW,
        "metadata: {name: tcp-echo-gateway}\nspec: {selector: {istio: ingressgateway}, servers: [{port: {number: 31400, name: tcp, protocol: TCP}, hosts: ['*']}]}",
        Accepted,
    ),
    (
        "request timeouts",
        VS,
        "metadata: {name: reviews}\nspec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v2}}], timeout: 0.5s}]}",
        Accepted,
    ),
    (
        "retries",
        VS,
        "metadata: {name: ratings}\nspec: {hosts: [ratings], http: [{route: [{destination: {host: ratings}}], retries: {attempts: 3, perTryTimeout: 2s, retryOn: 'connect-failure,refused-stream,503'}}]}",
        Accepted,
    ),
    (
        "circuit breaking",
        DR,
        "metadata: {name: httpbin}\nspec: {host: httpbin, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}}, outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 3m, maxEjectionPercent: 100}}}",
        Accepted,
    ),
    (
        "mirroring",
        VS,
        "metadata: {name: httpbin}\nspec: {hosts: [httpbin], http: [{route: [{destination: {host: httpbin, subset: v1}, weight: 100}], mirror: {host: httpbin, subset: v2}, mirrorPercentage: {value: 100.0}}]}",
        Accepted,
    ),
    (
        "mirroring to several",
        VS,
        "metadata: {name: httpbin}\nspec: {hosts: [httpbin], http: [{route: [{destination: {host: httpbin}}], mirrors: [{destination: {host: httpbin, subset: v2}}]}]}",
        Accepted,
    ),
    (
        "mirroring in two ways",
        VS,
        "metadata: {name: httpbin}\nspec: {hosts: [httpbin], http: [{route: [{destination: {host: httpbin}}], mirror: {host: httpbin}, mirrors: [{destination: {host: httpbin, subset: v2}}]}]}",
        Refused("spec.http[0].mirrors: excludes mirror"),
    ),
    (
        "mirroring of more than all",
        VS,
        "metadata: {name: httpbin}\nspec: {hosts: [httpbin], http: [{route: [{destination: {host: httpbin}}], mirror: {host: httpbin}, mirrorPercentage: {value: 101}}]}",
        Refused("spec.http[0].mirrorPercentage.value: must be a number between 0 and 100"),
    ),
    (
        "locality load balancing",
        DR,
        "metadata: {name: httpbin}\nspec: {host: httpbin, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: true, failover: [{from: region1, to: region2}]}}, outlierDetection: {consecutive5xxErrors: 1}}}",
        Accepted,
    ),
    (
        "locality load balancing by shares",
        DR,
        "metadata: {name: httpbin}\nspec: {host: httpbin, trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: region1/*, to: {region1/*: 80, region2/*: 20}}]}}}}",
        Refused("spec.trafficPolicy.loadBalancer.localityLbSetting.distribute: not supported yet"),
    ),
    (
        "sticky sessions",
        DR,
        "metadata: {name: httpbin}\nspec: {host: httpbin, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}",
        Accepted,
    ),
    (
        "CORS",
        VS,
        "metadata: {name: ratings}\nspec: {hosts: [ratings], http: [{corsPolicy: {allowOrigins: [{exact: 'https://example.com'}]}, route: [{destination: {host: ratings}}]}]}",
        Accepted,
    ),
    (
        "delegation",
        VS,
        "metadata: {name: root}\nspec: {hosts: [ratings], http: [{match: [{uri: {prefix: /p}}], delegate: {name: p, namespace: other}}]}",
        Refused("spec.http[0].delegate: not supported yet"),
    ),
    (
        "headers",
        VS,
        "metadata: {name: reviews}\nspec: {hosts: [reviews], http: [{headers: {request: {set: {x-test: 'true'}}, response: {remove: [x-internal], add: {x-by: mesh}}}, route: [{destination: {host: reviews}, headers: {response: {set: {x-v: one}}}}]}]}",
        Accepted,
    ),
    (
        "redirect",
        VS,
        "metadata: {name: ratings}\nspec: {hosts: [ratings], http: [{match: [{uri: {exact: /old}}], redirect: {uri: /new, authority: other.example.com, redirectCode: 308}}, {match: [{uri: {exact: /gone}}], directResponse: {status: 410, body: {string: gone}}}, {route: [{destination: {host: ratings}}]}]}",
        Accepted,
    ),
    (
        "a field misspelt",
        VS,
        "metadata: {name: ratings}\nspec: {hosts: [ratings], http: [{timout: 1s, route: [{destination: {host: ratings}}]}]}",
        Refused("spec.http[0].timout"),
    ),
    (
        "sidecar scoping",
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\n",
        "metadata: {name: default}\nspec: {egress: [{hosts: ['./*']}]}",
        Refused("Sidecar is not supported yet"),
    ),
    (
        "envoy filter",
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\n",
        "metadata: {name: ratelimit}\nspec: {}",
        Refused("EnvoyFilter is not supported yet"),
    ),
];

#[test]
fn ingress_tasks() {
    check(INGRESS);
}

const INGRESS: &[Task] = &[
    (
        "ingress gateway",
        GW,
        "metadata: {name: httpbin-gateway}\nspec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [httpbin.example.com]}]}",
        Accepted,
    ),
    (
        "ingress routes",
        VS,
        "metadata: {name: httpbin}\nspec: {hosts: [httpbin.example.com], gateways: [httpbin-gateway], http: [{match: [{uri: {prefix: /status}}, {uri: {prefix: /delay}}], route: [{destination: {port: {number: 8080}, host: httpbin}}]}]}",
        Accepted,
    ),
    (
        "ingress for a browser",
        VS,
        "metadata: {name: httpbin}\nspec: {hosts: ['*'], gateways: [httpbin-gateway], http: [{match: [{uri: {prefix: /headers}}], route: [{destination: {port: {number: 8080}, host: httpbin}}]}]}",
        Accepted,
    ),
    (
        "secure gateway",
        GW,
        "metadata: {name: mygateway}\nspec: {selector: {istio: ingressgateway}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: httpbin-credential}, hosts: [httpbin.example.com]}, {port: {number: 443, name: https-hello, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: hello-credential}, hosts: [hello.example.com]}]}",
        Accepted,
    ),
    (
        "mutual gateway",
        GW,
        "metadata: {name: mygateway}\nspec: {selector: {istio: ingressgateway}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: MUTUAL, credentialName: httpbin-credential, minProtocolVersion: TLSV1_2}, hosts: [httpbin.example.com]}]}",
        Accepted,
    ),
    (
        "cipher suites",
        GW,
        "metadata: {name: mygateway}\nspec: {selector: {istio: ingressgateway}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: c, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256]}, hosts: [httpbin.example.com]}]}",
        Refused("spec.servers[0].tls.cipherSuites: not supported yet"),
    ),
    (
        "certificates from files",
        GW,
        "metadata: {name: mygateway}\nspec: {selector: {istio: ingressgateway}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: SIMPLE, serverCertificate: /etc/tls.crt, privateKey: /etc/tls.key}, hosts: ['*']}]}",
        Refused("spec.servers[0].tls.serverCertificate: not supported yet"),
    ),
    (
        "redirect to HTTPS",
        GW,
        "metadata: {name: mygateway}\nspec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, tls: {httpsRedirect: true}, hosts: ['*.example.com']}]}",
        Accepted,
    ),
    (
        "TLS passthrough",
        GW,
        "metadata: {name: mygateway}\nspec: {selector: {istio: ingressgateway}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, tls: {mode: PASSTHROUGH}, hosts: [nginx.example.com]}]}",
        Accepted,
    ),
    (
        "TLS passthrough: route",
        VS,
        "metadata: {name: nginx}\nspec: {hosts: [nginx.example.com], gateways: [mygateway], tls: [{match: [{port: 443, sniHosts: [nginx.example.com]}], route: [{destination: {host: httpbin, port: {number: 8080}}}]}]}",
        Accepted,
    ),
    (
        "Kubernetes Ingress",
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\n",
        "metadata: {name: ingress}\nspec: {}",
        Refused("is a Kubernetes kind"),
    ),
    (
        "Gateway API",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n",
        "metadata: {name: httpbin}\nspec: {}",
        Refused("Gateway API is not supported yet"),
    ),
];

#[test]
fn egress_tasks() {
    check(EGRESS);
}

const EGRESS: &[Task] = &[
    (
        "external service",
        SE,
        "metadata: {name: httpbin-ext}\nspec: {hosts: [httpbin.org], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS, location: MESH_EXTERNAL}",
        Accepted,
    ),
    (
        "external service: timeout",
        VS,
        "metadata: {name: httpbin-ext}\nspec: {hosts: [httpbin.org], http: [{timeout: 3s, route: [{destination: {host: httpbin.org}, weight: 100}]}]}",
        Accepted,
    ),
    (
        "external TLS",
        SE,
        "metadata: {name: wikipedia}\nspec: {hosts: [www.wikipedia.org], ports: [{number: 443, name: https, protocol: HTTPS}], resolution: DNS, location: MESH_EXTERNAL}",
        Accepted,
    ),
    (
        "several ports",
        SE,
        "metadata: {name: edition-cnn-com}\nspec: {hosts: [edition.cnn.com], ports: [{number: 80, name: http-port, protocol: HTTP}, {number: 443, name: https-port, protocol: HTTPS}], resolution: DNS}",
        Accepted,
    ),
    (
        "TLS origination: port",
        SE,
        "metadata: {name: edition-cnn-com}\nspec: {hosts: [edition.cnn.com], ports: [{number: 80, name: http-port, protocol: HTTP, targetPort: 443}, {number: 443, name: https-port, protocol: HTTPS}], resolution: DNS}",
        Accepted,
    ),
    (
        "TLS origination: rule",
        DR,
        "metadata: {name: edition-cnn-com}\nspec: {host: edition.cnn.com, trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE}}]}}",
        Accepted,
    ),
    (
        "mutual TLS origination",
        DR,
        "metadata: {name: originate-mtls}\nspec: {host: my-nginx.example.com, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}, portLevelSettings: [{port: {number: 443}, tls: {mode: MUTUAL, credentialName: client-credential, sni: my-nginx.example.com}}]}}",
        Accepted,
    ),
    (
        "mutual TLS origination from files",
        DR,
        "metadata: {name: originate-mtls}\nspec: {host: my-nginx.example.com, trafficPolicy: {tls: {mode: MUTUAL, clientCertificate: /etc/c.pem, privateKey: /etc/k.pem, caCertificates: /etc/ca.pem}}}",
        Refused("spec.trafficPolicy.tls.clientCertificate: not supported yet"),
    ),
    (
        "egress gateway",
        GW,
        "metadata: {name: istio-egressgateway}\nspec: {selector: {istio: egressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [edition.cnn.com]}]}",
        Accepted,
    ),
    (
        "egress gateway: routes",
        VS,
        "metadata: {name: direct-cnn-through-egress-gateway}\nspec: {hosts: [edition.cnn.com], gateways: [istio-egressgateway, mesh], http: [{match: [{gateways: [mesh], port: 80}], route: [{destination: {host: istio-egressgateway.istio-system.svc.cluster.local, port: {number: 80}}, weight: 100}]}, {match: [{gateways: [istio-egressgateway], port: 80}], route: [{destination: {host: edition.cnn.com, port: {number: 80}}, weight: 100}]}]}",
        Accepted,
    ),
    (
        "wildcard egress without resolution",
        SE,
        "metadata: {name: wikipedia}\nspec: {hosts: ['*.wikipedia.org'], ports: [{number: 443, name: https, protocol: HTTPS}]}",
        Refused("NONE, the default, is not supported yet"),
    ),
    (
        "addresses",
        SE,
        "metadata: {name: mongo}\nspec: {hosts: [my-mongo.tcp.svc], addresses: [10.0.0.7/32], ports: [{number: 27017, name: tcp, protocol: TCP}], location: MESH_EXTERNAL, resolution: STATIC, endpoints: [{address: 10.0.0.7}]}",
        Refused("spec.addresses: not supported yet"),
    ),
    (
        "machines outside",
        SE,
        "metadata: {name: details}\nspec: {hosts: [details.bookinfo.com], location: MESH_INTERNAL, ports: [{number: 80, name: http, protocol: HTTP}], resolution: STATIC, workloadSelector: {labels: {app: details-legacy}}}",
        Accepted,
    ),
    (
        "machine",
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n",
        "metadata: {name: details-svc}\nspec: {serviceAccount: details-legacy, address: 2.2.2.2, labels: {app: details-legacy, instance-id: vm1}, ports: {http: 8080}}",
        Accepted,
    ),
    (
        "machine group",
        "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\n",
        "metadata: {name: reviews}\nspec: {metadata: {labels: {app: reviews}}, template: {ports: {http: 9080}, serviceAccount: reviews}, probe: {httpGet: {port: 9080}}}",
        Accepted,
    ),
    (
        "machine group with a command",
        "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\n",
        "metadata: {name: reviews}\nspec: {template: {}, probe: {exec: {command: [ls]}}}",
        Refused("spec.probe.exec: not supported yet"),
    ),
];
