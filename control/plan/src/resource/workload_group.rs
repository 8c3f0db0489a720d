//! `WorkloadGroup`: what the workloads of a group have in common, and how it is found out whether they are healthy.
//!
//! A proxy says at its registration to which group of its namespace its workload belongs. What it does not say itself it
//! has from the group's template; the group's probe is made by the proxy, and its outcome goes with the lease.

use std::collections::BTreeMap;
use std::time::Duration;

use outrigger_traffic::config::Locality;

use super::document::{is_host, is_label};
use super::read::{Fields, Node};
use super::shape;
use super::workload_entry::{WEIGHT_MAX, parse_locality};

/// Most headers of a probe.
pub const HEADERS_MAX: usize = 32;

/// Longest path, header name and header value of a probe, bytes.
const TEXT_BYTES_MAX: usize = 2_048;

/// Longest time in a probe, seconds: a day.
const SECONDS_MAX: u32 = 86_400;

/// Highest threshold.
const THRESHOLD_MAX: u32 = 1_000;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct WorkloadGroup {
    /// Labels of its workloads, beside those of the template, before which they go.
    pub labels: BTreeMap<String, String>,
    /// What its workloads have.
    pub template: Template,
    /// Whether they are healthy; `None`: as long as their proxies are.
    pub probe: Option<Probe>,
}

/// A WorkloadEntry without an address: that is each workload's own.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Template {
    /// Ports by name, where a workload announces none.
    pub ports: BTreeMap<String, u16>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Where they are, where a workload does not say it.
    pub locality: Locality,
    /// Their weight, where a workload does not say it; 0: not given.
    pub weight: u32,
    /// The only service account that may be in the group; empty: any.
    pub service_account: String,
}

/// `ReadinessProbe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Before the first try. Default 0.
    pub initial_delay: Duration,
    /// For one try. Default 1 s.
    pub timeout: Duration,
    /// Between two. Default 10 s.
    pub period: Duration,
    /// Successes in a row that make it healthy. Default 1.
    pub success_threshold: u32,
    /// Failures in a row that make it unhealthy. Default 3.
    pub failure_threshold: u32,
    /// What is tried.
    pub kind: ProbeKind,
}

/// What is tried; a host that is not given is the application's, as its proxy reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// A GET that is answered with 200 to 399.
    Http {
        /// Address or name.
        host: Option<String>,
        /// Port.
        port: u16,
        /// Path and query; `/` by default.
        path: String,
        /// Further headers.
        headers: Vec<(String, String)>,
        /// Over TLS, whatever the certificate (`scheme: HTTPS`).
        tls: bool,
    },
    /// A connection that is taken.
    Tcp {
        /// Address or name.
        host: Option<String>,
        /// Port.
        port: u16,
    },
    /// A `grpc.health.v1.Health/Check` that says SERVING.
    Grpc {
        /// Port.
        port: u16,
        /// The service asked about; empty: the server as a whole.
        service: String,
    },
}

impl WorkloadGroup {
    pub(super) fn read(spec: &Node<'_>) -> Option<Self> {
        spec.message(&shape::WORKLOAD_GROUP, |f| Self {
            labels: f
                .field("metadata")
                .and_then(|n| n.message(&shape::WORKLOAD_GROUP_METADATA, |f| f.texts_by_key("labels")))
                .unwrap_or_default(),
            template: f.required("template").and_then(|n| Template::read(&n)).unwrap_or_default(),
            probe: f.field("probe").and_then(|n| Probe::read(&n)),
        })
    }

    /// All labels that workloads of the group have from it.
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.template.labels.clone();
        labels.extend(self.labels.clone());
        labels
    }
}

impl Template {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::WORKLOAD_GROUP_TEMPLATE, |f| {
            let service_account = f.text("serviceAccount");
            if !service_account.is_empty() && !is_label(&service_account) {
                f.problem("serviceAccount", "must be a DNS label");
            }
            Self {
                ports: f
                    .field("ports")
                    .map(|n| n.entries().into_iter().map(|(name, port)| (name, port.port())).collect())
                    .unwrap_or_default(),
                labels: f.texts_by_key("labels"),
                locality: f.field("locality").map(|n| parse_locality(&n.text())).unwrap_or_default(),
                weight: f.field("weight").map_or(0, |n| n.number(0, WEIGHT_MAX)),
                service_account,
            }
        })
    }
}

impl Probe {
    fn read(node: &Node<'_>) -> Option<Self> {
        let read = node.message(&shape::READINESS_PROBE, |f| {
            // Istio: 0 is as not given.
            let number =
                |name: &'static str, max: u32, default: u32| match f.field(name).map(|n| n.number(0, max)) {
                    None | Some(0) => default,
                    Some(given) => given,
                };
            let seconds = |name, default| Duration::from_secs(number(name, SECONDS_MAX, default).into());
            let http = f.field("httpGet").map(|n| read_http(&n));
            let tcp = f.field("tcpSocket").map(|n| read_tcp(&n));
            let grpc = f.field("grpc").map(|n| read_grpc(&n));
            let mut given = [http, tcp, grpc].into_iter().flatten();
            let kind = match (given.next(), given.next()) {
                (Some(kind), None) => kind,
                (None, _) => {
                    f.problem("", "one of httpGet, tcpSocket and grpc is required");
                    None
                }
                (Some(_), Some(_)) => {
                    f.problem("", "only one of httpGet, tcpSocket and grpc can be given");
                    None
                }
            };
            Some(Self {
                initial_delay: seconds("initialDelaySeconds", 0),
                timeout: seconds("timeoutSeconds", 1),
                period: seconds("periodSeconds", 10),
                success_threshold: number("successThreshold", THRESHOLD_MAX, 1),
                failure_threshold: number("failureThreshold", THRESHOLD_MAX, 3),
                kind: kind?,
            })
        });
        read.flatten()
    }
}

fn read_http(node: &Node<'_>) -> Option<ProbeKind> {
    let read = node.message(&shape::PROBE_HTTP, |f| {
        let port = f.required("port").map(|n| n.port());
        let path = f.text("path");
        let visible = |b: u8| b.is_ascii_graphic();
        let fits = path.starts_with('/') && path.len() <= TEXT_BYTES_MAX && path.bytes().all(visible);
        if !(path.is_empty() || fits) {
            f.problem("path", "must begin with / and have only visible ASCII characters");
        }
        let schemes = [("HTTP", false), ("", false), ("HTTPS", true)];
        let tls = f.field("scheme").and_then(|scheme| scheme.word(&schemes, &[])).unwrap_or_default();
        let headers = f.list("httpHeaders");
        if headers.len() > HEADERS_MAX {
            f.problem("httpHeaders", format!("at most {HEADERS_MAX} are allowed"));
        }
        let headers = headers.iter().filter_map(read_header).collect();
        Some(ProbeKind::Http {
            host: read_host(f),
            port: port?,
            path: if path.is_empty() { "/".to_owned() } else { path },
            headers,
            tls,
        })
    });
    read.flatten()
}

fn read_grpc(node: &Node<'_>) -> Option<ProbeKind> {
    let read = node.message(&shape::PROBE_GRPC, |f| {
        let port = f.required("port").map(|n| n.port());
        let service = f.text("service");
        if service.len() > TEXT_BYTES_MAX {
            f.problem("service", format!("must have at most {TEXT_BYTES_MAX} bytes"));
        }
        Some(ProbeKind::Grpc { port: port?, service })
    });
    read.flatten()
}

fn read_tcp(node: &Node<'_>) -> Option<ProbeKind> {
    let read = node.message(&shape::PROBE_TCP, |f| {
        let port = f.required("port").map(|n| n.port());
        Some(ProbeKind::Tcp { host: read_host(f), port: port? })
    });
    read.flatten()
}

fn read_host(f: &Fields<'_>) -> Option<String> {
    let host = f.text("host");
    if host.is_empty() {
        return None;
    }
    if host.parse::<std::net::IpAddr>().is_err() && !is_host(&host) {
        f.problem("host", "must be an IP address or a host name");
    }
    Some(host)
}

/// A header that can be written as it stands (RFC 9110 sections 5.1 and 5.5).
fn read_header(node: &Node<'_>) -> Option<(String, String)> {
    node.message(&shape::PROBE_HEADER, |f| {
        let (name, value) = (f.text("name"), f.text("value"));
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || name.len() > TEXT_BYTES_MAX || !name.bytes().all(token) {
            f.problem("name", "is no name of a header");
        }
        if ["connection", "content-length", "transfer-encoding"].contains(&name.to_ascii_lowercase().as_str())
        {
            f.problem("name", "is the probe's own to set");
        }
        if value.len() > TEXT_BYTES_MAX || !value.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
            f.problem("value", "must have only visible ASCII characters and spaces");
        }
        (name, value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::{Object, Spec};

    fn read(spec: &str) -> Result<WorkloadGroup, String> {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {{name: vms, namespace: shop}}\nspec: {spec}\n"
        );
        match crate::resource::parse_documents(&text).remove(0) {
            Ok(Object { spec: Spec::WorkloadGroup(group), .. }) => Ok(group),
            Ok(other) => panic!("{other:?}"),
            Err(errors) => Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        }
    }

    #[test]
    fn group_is_read_with_the_defaults_of_its_probe() {
        let text = "{metadata: {labels: {app: db}}, template: {ports: {http-web: 8080}, labels: {app: x, tier: y}, locality: hq/r7, weight: 5, serviceAccount: db}, probe: {httpGet: {port: 8080, path: /ready?x=1, httpHeaders: [{name: x-a, value: b c}]}}}";
        let group = read(text).unwrap();
        assert_eq!(group.all_labels()["app"], "db", "the group's own go before the template's");
        assert_eq!(group.template.ports["http-web"], 8080);
        assert_eq!((group.template.weight, group.template.service_account.as_str()), (5, "db"));
        let probe = group.probe.unwrap();
        assert_eq!((probe.period.as_secs(), probe.timeout.as_secs()), (10, 1));
        assert_eq!((probe.success_threshold, probe.failure_threshold), (1, 3));
        let expected = ProbeKind::Http {
            host: None,
            port: 8080,
            path: "/ready?x=1".to_owned(),
            headers: vec![("x-a".to_owned(), "b c".to_owned())],
            tls: false,
        };
        assert_eq!(probe.kind, expected);
        let tcp = "{template: {}, probe: {periodSeconds: 0, failureThreshold: 5, tcpSocket: {host: db.example, port: 1}}}";
        let probe = read(tcp).unwrap().probe.unwrap();
        assert_eq!((probe.period.as_secs(), probe.failure_threshold), (10, 5));
        assert_eq!(probe.kind, ProbeKind::Tcp { host: Some("db.example".to_owned()), port: 1 });
        let kind = |text: &str| read(text).unwrap().probe.unwrap().kind;
        let grpc = kind("{template: {}, probe: {grpc: {port: 7, service: shop.Cart}}}");
        assert_eq!(grpc, ProbeKind::Grpc { port: 7, service: "shop.Cart".to_owned() });
        let https = kind("{template: {}, probe: {httpGet: {port: 7, scheme: HTTPS}}}");
        assert!(matches!(https, ProbeKind::Http { tls: true, .. }));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_its_path() {
        for (text, path) in [
            ("{}", "spec.template: is required"),
            ("{template: {address: 10.0.0.1}}", "spec.template.address"),
            ("{template: {network: n}}", "spec.template.network: not supported yet"),
            (
                "{metadata: {annotations: {a: b}}, template: {}}",
                "spec.metadata.annotations: not supported yet",
            ),
            ("{template: {}, probe: {}}", "spec.probe"),
            ("{template: {}, probe: {exec: {command: [x]}}}", "spec.probe.exec: not supported yet"),
            ("{template: {}, probe: {grpc: {service: x}}}", "spec.probe.grpc.port: is required"),
            ("{template: {}, probe: {grpc: {port: 1}, tcpSocket: {port: 1}}}", "only one of"),
            ("{template: {}, probe: {httpGet: {}}}", "spec.probe.httpGet.port: is required"),
            ("{template: {}, probe: {httpGet: {port: 1, scheme: GOPHER}}}", "spec.probe.httpGet.scheme"),
            ("{template: {}, probe: {httpGet: {port: 1, path: x}}}", "spec.probe.httpGet.path"),
            ("{template: {}, probe: {httpGet: {port: 1, host: \"a b\"}}}", "spec.probe.httpGet.host"),
            ("{template: {}, probe: {httpGet: {port: 1}, tcpSocket: {port: 1}}}", "only one of"),
            ("{template: {}, probe: {tcpSocket: {port: 70000}}}", "spec.probe.tcpSocket.port"),
            ("{template: {}, probe: {periodSeconds: -1, tcpSocket: {port: 1}}}", "spec.probe.periodSeconds"),
            (
                "{template: {}, probe: {httpGet: {port: 1, httpHeaders: [{name: \"a b\", value: x}]}}}",
                "spec.probe.httpGet.httpHeaders[0].name",
            ),
            (
                "{template: {}, probe: {httpGet: {port: 1, httpHeaders: [{name: a, value: \"x\\r\\ny: z\"}]}}}",
                "spec.probe.httpGet.httpHeaders[0].value",
            ),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(path), "{text}: {refused}");
        }
    }

    #[test]
    fn headers_of_a_probe_pass_at_their_limit_and_not_one_past_it() {
        let with = |count: usize| {
            let one = "{name: a, value: b},".repeat(count);
            read(&format!("{{template: {{}}, probe: {{httpGet: {{port: 1, httpHeaders: [{one}]}}}}}}"))
        };
        assert!(with(HEADERS_MAX).is_ok() && with(HEADERS_MAX + 1).is_err());
    }
}
