//! `Gateway`: where the mesh can be entered from outside.

use std::collections::BTreeMap;
use std::net::IpAddr;

use outrigger_traffic::config::TlsVersion;

use super::document::{is_host_pattern, is_label};
use super::read::{Fields, Node};
use super::shape;

/// Ports opened on the gateways that carry some labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Labels of the gateways; empty: all gateways.
    pub selector: BTreeMap<String, String>,
    /// What they open.
    pub servers: Vec<Server>,
}

/// One opened port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// For people.
    pub name: String,
    /// Port number.
    pub port: u16,
    /// Name of the port.
    pub port_name: String,
    /// What is spoken.
    pub protocol: GatewayProtocol,
    /// Address; `None`: all addresses (IPv4).
    pub bind: Option<IpAddr>,
    /// Hosts served.
    pub hosts: Vec<ServerHost>,
    /// TLS; `None`: plaintext.
    pub tls: Option<ServerTls>,
}

/// A host of a server, and whose VirtualServices may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHost {
    /// Whose.
    pub namespaces: HostNamespaces,
    /// A name, `*.suffix` or `*`.
    pub host: String,
}

/// Whose VirtualServices may use a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostNamespaces {
    /// Anyone's.
    Any,
    /// Those of the gateway's own namespace (`./host`).
    Own,
    /// Those of this namespace.
    Only(String),
}

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GatewayProtocol {
    /// HTTP in plaintext, HTTP/1.1 and HTTP/2.
    Http,
    /// HTTP in TLS.
    Https,
    /// TLS, passed on or terminated.
    Tls,
    /// Bytes.
    Tcp,
}

/// `ServerTLSSettings`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// How; `None`: only `https_redirect` is given.
    pub mode: Option<ServerTlsMode>,
    /// Plaintext requests are redirected to https.
    pub https_redirect: bool,
    /// Name of a Secret in the namespace of the gateway's proxy.
    pub credential_name: String,
    /// Names accepted of clients.
    pub subject_alt_names: Vec<String>,
    /// Lowest version.
    pub min: Option<TlsVersion>,
    /// Highest version.
    pub max: Option<TlsVersion>,
}

/// `ServerTLSSettings.TLSmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerTlsMode {
    /// Not terminated.
    Passthrough,
    /// Terminated.
    Simple,
    /// Terminated; clients need a certificate.
    Mutual,
    /// Terminated; clients may have a certificate.
    OptionalMutual,
    /// Terminated with the mesh's certificate; clients are members of the mesh.
    IstioMutual,
}

impl Gateway {
    pub(super) fn read(spec: &Node<'_>) -> Option<Self> {
        spec.message(&shape::GATEWAY, |f| {
            let servers: Vec<Server> = f
                .required("servers")
                .map(|n| n.list())
                .unwrap_or_default()
                .iter()
                .filter_map(Server::read)
                .collect();
            for (i, server) in servers.iter().enumerate() {
                if servers
                    .iter()
                    .take(i)
                    .any(|s| s.port == server.port && s.bind == server.bind && s.protocol != server.protocol)
                {
                    f.problem(&format!("servers[{i}].port"), "the same port cannot speak two protocols");
                }
            }
            Self { selector: f.texts_by_key("selector"), servers }
        })
    }
}

impl Server {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::SERVER, |f| {
            let port = f.required("port").and_then(|n| n.message(&shape::GATEWAY_PORT, read_port));
            let (number, port_name, protocol) = port.unwrap_or((1, String::new(), GatewayProtocol::Http));
            let bind = f.field("bind").and_then(|n| {
                let address = n.name().parse().ok();
                if address.is_none() {
                    n.problem("must be an IP address");
                }
                address
            });
            let nodes = f.required("hosts").map(|n| n.list()).unwrap_or_default();
            if nodes.is_empty() {
                f.problem("hosts", "must name at least one host");
            }
            let server = Self {
                name: f.text("name"),
                port: number,
                port_name,
                protocol,
                bind,
                hosts: nodes.iter().map(read_host).collect(),
                tls: f.field("tls").and_then(|n| ServerTls::read(&n)),
            };
            server.check(f);
            server
        })
    }

    fn check(&self, f: &Fields<'_>) {
        let mode = self.tls.as_ref().and_then(|tls| tls.mode);
        match self.protocol {
            GatewayProtocol::Http | GatewayProtocol::Tcp if mode.is_some() => {
                f.problem("tls.mode", "cannot be given with the protocols HTTP and TCP");
            }
            GatewayProtocol::Https | GatewayProtocol::Tls if mode.is_none() => {
                f.problem("tls", "is required with the protocols HTTPS and TLS");
            }
            _ => {}
        }
        let redirect = self.tls.as_ref().is_some_and(|tls| tls.https_redirect);
        if redirect && self.protocol != GatewayProtocol::Http {
            f.problem("tls.httpsRedirect", "needs the protocol HTTP");
        }
    }
}

fn read_port(f: &Fields<'_>) -> (u16, String, GatewayProtocol) {
    let words = [
        ("HTTP", GatewayProtocol::Http),
        ("HTTP2", GatewayProtocol::Http),
        ("GRPC", GatewayProtocol::Http),
        ("HTTPS", GatewayProtocol::Https),
        ("TLS", GatewayProtocol::Tls),
        ("TCP", GatewayProtocol::Tcp),
    ];
    let number = f.required("number").map_or(1, |n| n.port());
    let protocol = f.required("protocol").and_then(|n| n.word(&words, &["GRPC-WEB", "MONGO"]));
    (number, f.text("name"), protocol.unwrap_or(GatewayProtocol::Http))
}

fn read_host(node: &Node<'_>) -> ServerHost {
    let text = node.name().to_ascii_lowercase();
    let (namespace, host) = text.split_once('/').unwrap_or(("*", &text));
    let namespaces = match namespace {
        "*" => HostNamespaces::Any,
        "." => HostNamespaces::Own,
        name => HostNamespaces::Only(name.to_owned()),
    };
    if matches!(&namespaces, HostNamespaces::Only(name) if !is_label(name)) || !is_host_pattern(host) {
        node.problem(format!("{text:?} is no host, nor namespace/host"));
    }
    ServerHost { namespaces, host: host.to_owned() }
}

impl ServerTls {
    fn read(node: &Node<'_>) -> Option<Self> {
        node.message(&shape::SERVER_TLS, |f| {
            let modes = [
                ("PASSTHROUGH", ServerTlsMode::Passthrough),
                ("SIMPLE", ServerTlsMode::Simple),
                ("MUTUAL", ServerTlsMode::Mutual),
                ("OPTIONAL_MUTUAL", ServerTlsMode::OptionalMutual),
                ("ISTIO_MUTUAL", ServerTlsMode::IstioMutual),
            ];
            let versions = [
                ("TLS_AUTO", None),
                ("TLSV1_2", Some(TlsVersion::V1_2)),
                ("TLSV1_3", Some(TlsVersion::V1_3)),
            ];
            let old = ["TLSV1_0", "TLSV1_1"];
            let tls = Self {
                mode: f.field("mode").and_then(|n| n.word(&modes, &["AUTO_PASSTHROUGH"])),
                https_redirect: f.field("httpsRedirect").is_some_and(|n| n.flag()),
                credential_name: f.text("credentialName"),
                subject_alt_names: f.texts("subjectAltNames"),
                min: f.field("minProtocolVersion").and_then(|n| n.word(&versions, &old)).flatten(),
                max: f.field("maxProtocolVersion").and_then(|n| n.word(&versions, &old)).flatten(),
            };
            let needs = matches!(
                tls.mode,
                Some(ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual)
            );
            if needs && tls.credential_name.is_empty() {
                f.problem(
                    "credentialName",
                    "is required with this mode: certificates from files are not supported yet",
                );
            }
            if !tls.subject_alt_names.is_empty()
                && !matches!(tls.mode, Some(ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual))
            {
                f.problem("subjectAltNames", "needs the mode MUTUAL or OPTIONAL_MUTUAL");
            }
            if tls.min > tls.max && tls.max.is_some() {
                f.problem("minProtocolVersion", "is above maxProtocolVersion");
            }
            tls
        })
    }
}
