//! The mesh flags, checked, as one value.

use super::proof::Source;
use crate::cli::{Attest, Mesh, Role};
use anyhow::{Context, bail};
use outrigger_api::outrigger::v1::{Health, Locality, Workload, WorkloadPort};
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};

/// Default of `--state-dir` in a mesh.
const STATE_DIR: &str = "/var/lib/outrigger-proxy";

/// Who this proxy is and where the mesh is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Control service addresses, `host:port`.
    pub control: Vec<String>,
    /// Trust roots for the first contact, PEM.
    pub roots_pem: String,
    /// Join token, if any.
    pub join_token: Option<String>,
    /// What proves who we are, where there is no join token.
    pub proof: Option<Source>,
    /// Folder for what must survive a restart.
    pub state_dir: PathBuf,
    /// What is registered.
    pub workload: Workload,
    /// Where the application is.
    pub app_address: IpAddr,
    /// Sidecar or gateway.
    pub role: Role,
}

impl Settings {
    /// Checks the flags and reads the files they name.
    ///
    /// # Errors
    /// Names the flag that is missing or wrong.
    pub fn from_flags(flags: &Mesh) -> anyhow::Result<Self> {
        let state_dir = flags.state_dir.clone().unwrap_or_else(|| STATE_DIR.into());
        fs::create_dir_all(&state_dir).with_context(|| format!("--state-dir {}", state_dir.display()))?;
        let path = flags.trust_bundle.as_ref().context("--trust-bundle is needed with --control")?;
        let roots_pem =
            fs::read_to_string(path).with_context(|| format!("--trust-bundle {}", path.display()))?;
        let join_token = match (&flags.join_token, &flags.join_token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(path)) => {
                let text = fs::read_to_string(path)
                    .with_context(|| format!("--join-token-file {}", path.display()))?;
                Some(text.trim().to_owned())
            }
            (None, None) => None,
        };
        let address = match flags.address {
            Some(address) => address,
            None => {
                own_address(&flags.control, &state_dir).context("--address cannot be derived; give it")?
            }
        };
        let workload = workload(flags, &state_dir, address)?;
        Ok(Self {
            control: flags.control.clone(),
            roots_pem,
            join_token,
            proof: proof(flags)?,
            state_dir,
            workload,
            app_address: flags.app_address,
            role: flags.role,
        })
    }

    /// Name to verify in the control service's certificate: the host part of an address.
    pub fn server_name(&self) -> String {
        let first = self.control.first().map_or("", String::as_str);
        first.rsplit_once(':').map_or(first, |(host, _)| host).trim_matches(['[', ']']).to_owned()
    }
}

/// What the flags `--attest…` ask for.
fn proof(flags: &Mesh) -> anyhow::Result<Option<Source>> {
    Ok(match flags.attest {
        None => None,
        Some(Attest::Aws) => {
            let region =
                flags.attest_region.clone().context("--attest-region is needed with --attest=aws")?;
            let host = flags.attest_host.clone().unwrap_or_else(|| format!("sts.{region}.amazonaws.com"));
            Some(Source::Aws { region, host, audience: flags.attest_audience.clone() })
        }
        Some(Attest::Kubernetes) => {
            let cluster = flags
                .attest_cluster
                .clone()
                .context("--attest-cluster is needed with --attest=kubernetes")?;
            Some(Source::Kubernetes { cluster, token_file: flags.attest_token_file.clone() })
        }
    })
}

fn workload(flags: &Mesh, state_dir: &Path, address: IpAddr) -> anyhow::Result<Workload> {
    let mut labels = BTreeMap::new();
    for label in flags.label.iter().filter(|l| !l.is_empty()) {
        let (key, value) =
            label.split_once('=').with_context(|| format!("--label `{label}` is not key=value"))?;
        labels.insert(key.to_owned(), value.to_owned());
    }
    let instance_id = instance_id(flags, state_dir)?;
    let role = match flags.role {
        Role::Sidecar => "sidecar",
        Role::Gateway => "gateway",
    };
    if flags.app_address.is_unspecified() || flags.app_address.is_multicast() {
        bail!("--app-address {} is none that can be connected to", flags.app_address);
    }
    if flags.outbound_address.is_multicast() {
        bail!("--outbound-address {} is none that can be listened on", flags.outbound_address);
    }
    let declared = flags.port.iter().filter(|p| !p.is_empty());
    let ports = declared.map(|p| port(p, flags.app_address)).collect::<anyhow::Result<Vec<_>>>()?;
    if flags.role == Role::Sidecar && !ports.is_empty() && flags.service.is_empty() {
        bail!("--service is needed with --port");
    }
    let mut place = flags.locality.splitn(3, '/').map(str::to_owned);
    let locality = Locality {
        region: place.next().unwrap_or_default(),
        zone: place.next().unwrap_or_default(),
        sub_zone: place.next().unwrap_or_default(),
    };
    Ok(Workload {
        node_id: format!("{role}~{address}~{instance_id}.{ns}~{ns}.mesh", ns = flags.namespace),
        instance_id,
        namespace: flags.namespace.clone(),
        service_account: flags.service_account.clone(),
        labels,
        service: flags.service.clone(),
        version: flags.service_version.clone(),
        address: address.to_string(),
        ports,
        locality: Some(locality),
        inbound_port: if flags.role == Role::Sidecar { u32::from(flags.inbound_port) } else { 0 },
        outbound_port: if flags.role == Role::Sidecar { u32::from(flags.outbound_port) } else { 0 },
        outbound_address: flags.outbound_address.to_string(),
        // What its group says, or 1.
        weight: 0,
        health: Health::Unspecified.into(),
        gateway: flags.role == Role::Gateway,
        workload_group: flags.workload_group.clone(),
    })
}

/// The given name, or one made once and kept in the state folder, so that a restart is the same instance.
fn instance_id(flags: &Mesh, state_dir: &Path) -> anyhow::Result<String> {
    if let Some(id) = &flags.instance_id {
        return Ok(id.clone());
    }
    let path = state_dir.join("instance-id");
    if let Ok(id) = fs::read_to_string(&path) {
        return Ok(id.trim().to_owned());
    }
    let service = if flags.service.is_empty() { "proxy" } else { &flags.service };
    let id = format!("{service}-{:012x}", fastrand::u64(..) >> 16);
    fs::write(&path, &id).with_context(|| format!("{}", path.display()))?;
    Ok(id)
}

/// `name:protocol:number[:target-port[:inbound-port]]`.
fn port(text: &str, app_address: IpAddr) -> anyhow::Result<WorkloadPort> {
    let parts: Vec<&str> = text.split(':').collect();
    let number = |i: usize| -> anyhow::Result<u32> {
        parts
            .get(i)
            .map_or(Ok(0), |p| p.parse::<u16>().map(u32::from))
            .with_context(|| format!("--port `{text}`"))
    };
    let (Some(name), Some(protocol), 3..=5) = (parts.first(), parts.get(1), parts.len()) else {
        bail!("--port `{text}` is not name:protocol:number[:target-port[:inbound-port]]");
    };
    let protocol = protocol.to_ascii_uppercase();
    if !["HTTP", "HTTP2", "GRPC", "TCP", "TLS"].contains(&protocol.as_str()) {
        bail!("--port `{text}`: protocol is none of http, http2, grpc, tcp, tls");
    }
    Ok(WorkloadPort {
        name: (*name).to_owned(),
        number: number(2)?,
        protocol,
        target_address: app_address.to_string(),
        target_port: number(3)?,
        inbound_port: number(4)?,
    })
}

/// Address of the interface that leads to the control service. While that one is away its name may not resolve: then the
/// address of last time where it is still ours, else that of the way out.
fn own_address(control: &[String], state_dir: &Path) -> Option<IpAddr> {
    let path = state_dir.join("address");
    if let Some(address) = route_address(control) {
        // Without it only a restart during an outage is worse off.
        let _ = fs::write(&path, address.to_string());
        return Some(address);
    }
    let known: Option<IpAddr> = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    known.filter(|address| UdpSocket::bind((*address, 0)).is_ok()).or_else(|| route_address(&OUTSIDE))
}

/// Addresses of nobody, beyond any route but the default one. Source: RFC 5737, RFC 3849.
const OUTSIDE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// Address of the interface that leads to the first of these that has a route. Connecting a UDP socket sends nothing.
fn route_address<T: AsRef<str>>(targets: &[T]) -> Option<IpAddr> {
    targets.iter().find_map(|address| {
        ["0.0.0.0:0", "[::]:0"].iter().find_map(|any| {
            let socket = UdpSocket::bind(any).ok()?;
            socket.connect(address.as_ref()).ok()?;
            Some(socket.local_addr().ok()?.ip())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// What is registered with these flags.
    fn registered(flags: &[&str]) -> anyhow::Result<Workload> {
        let common = ["outrigger-proxy", "--service=b", "--instance-id=b-1", "--port=http:http:80:8080"];
        let cli = Cli::try_parse_from(common.iter().chain(flags))?;
        workload(&cli.run.mesh, Path::new("/nowhere"), LOOPBACK)
    }

    #[test]
    fn port_declaration_is_read_or_refused() {
        let p = port("web:http:80:8080:15006", LOOPBACK).unwrap();
        assert_eq!(
            (p.name.as_str(), p.protocol.as_str(), p.number, p.target_port, p.inbound_port),
            ("web", "HTTP", 80, 8080, 15006)
        );
        assert_eq!(port("web:grpc:80", LOOPBACK).unwrap().target_port, 0);
        for bad in ["web", "web:http", "web:http:x", "web:smtp:80", "web:http:70000", "a:http:1:2:3:4"] {
            assert!(port(bad, LOOPBACK).is_err(), "{bad}");
        }
    }

    #[test]
    fn application_is_met_on_loopback_unless_flags_say_otherwise() {
        let plain = registered(&[]).unwrap();
        assert_eq!(plain.ports[0].target_address, "127.0.0.1");
        assert_eq!((plain.outbound_address.as_str(), plain.outbound_port), ("127.0.0.1", 15_001));
        let apart = registered(&["--app-address=172.17.0.1", "--outbound-address=0.0.0.0"]).unwrap();
        assert_eq!(apart.ports[0].target_address, "172.17.0.1");
        assert_eq!(apart.outbound_address, "0.0.0.0");
    }

    #[test]
    fn own_address_is_that_of_last_time_while_the_control_service_has_no_name() {
        let state = tempfile::tempdir().unwrap();
        let away = ["control.invalid:15012".to_owned()];
        let last: IpAddr = "127.0.0.9".parse().unwrap();
        fs::write(state.path().join("address"), "127.0.0.9\n").unwrap();
        assert_eq!(own_address(&away, state.path()), Some(last));
        // An address that is not this host's any more is not announced.
        fs::write(state.path().join("address"), "192.0.2.77").unwrap();
        assert_eq!(own_address(&away, state.path()), route_address(&OUTSIDE));
        assert_eq!(own_address(&["127.0.0.1:15012".to_owned()], state.path()), Some(LOOPBACK));
        assert_eq!(fs::read_to_string(state.path().join("address")).unwrap(), "127.0.0.1");
    }

    #[test]
    fn address_that_cannot_be_used_is_refused_by_its_flag() {
        for (flag, name) in [
            ("--app-address=0.0.0.0", "--app-address"),
            ("--app-address=224.0.0.1", "--app-address"),
            ("--app-address=localhost", "--app-address"),
            ("--outbound-address=224.0.0.1", "--outbound-address"),
        ] {
            let error = registered(&[flag]).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
