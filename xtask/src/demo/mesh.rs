//! The demo's mesh on loopback: control service, applications, sidecars, gateway.

use super::process::{Process, run, run_any};
use anyhow::{Context, bail};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Namespace of the demo's services.
pub const NAMESPACE: &str = "demo";
/// Host that end users ask for.
pub const PUBLIC_HOST: &str = "shop.example.test";

/// Where the binaries are.
pub struct Binaries {
    /// `outrigger-control`.
    pub control: PathBuf,
    /// `outrigger-proxy`.
    pub proxy: PathBuf,
    /// `outrigger`.
    pub cli: PathBuf,
    /// This program, for the applications.
    pub own: PathBuf,
}

/// One application with its sidecar.
pub struct Member {
    /// `a`, `b-v1`, …
    pub name: String,
    service: String,
    version: String,
    app_port: u16,
    /// Where the mesh reaches it.
    pub inbound: SocketAddr,
    outbound_port: u16,
    /// Admin interface of its sidecar.
    pub admin: SocketAddr,
    /// The application.
    pub app: Process,
    /// The sidecar; `None` while it is stopped.
    pub sidecar: Option<Process>,
}

/// Everything that runs.
pub struct Mesh {
    bin: Binaries,
    /// Folder of the run.
    pub dir: PathBuf,
    control: Option<Process>,
    /// xDS address of the control service.
    pub xds: SocketAddr,
    /// Operator API.
    pub api: SocketAddr,
    svid_ttl: Duration,
    /// Applications with sidecars.
    pub members: Vec<Member>,
    gateway: Option<Process>,
    /// Where end users connect.
    pub gateway_address: SocketAddr,
    /// CA of the gateway's public certificate.
    pub public_ca_pem: String,
}

/// A port that is free now, below the range from which outgoing connections get theirs.
pub fn free_port() -> anyhow::Result<u16> {
    for _ in 0..1000 {
        let port = fastrand::u16(20_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port")
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Mesh {
    /// Starts the control service.
    pub fn start(bin: Binaries, dir: &Path, svid_ttl: Duration) -> anyhow::Result<Self> {
        fs::create_dir_all(dir.join("logs"))?;
        let mut mesh = Self {
            bin,
            dir: dir.to_owned(),
            control: None,
            xds: loopback(free_port()?),
            api: loopback(free_port()?),
            svid_ttl,
            members: Vec::new(),
            gateway: None,
            gateway_address: loopback(free_port()?),
            public_ca_pem: String::new(),
        };
        mesh.start_control()?;
        Ok(mesh)
    }

    /// Starts the control service, again after [`Self::kill_control`].
    pub fn start_control(&mut self) -> anyhow::Result<()> {
        let args = [
            "run".to_owned(),
            format!("--data-dir={}", self.control_dir().display()),
            format!("--xds-address={}", self.xds),
            format!("--api-address={}", self.api),
            format!("--svid-ttl={}s", self.svid_ttl.as_secs()),
            // All of this mesh is on this host.
            "--allow-loopback-workloads".to_owned(),
        ];
        let mut control = Process::start("control", &self.bin.control, &args, &self.dir.join("logs"))?;
        wait_until("control service", Duration::from_secs(20), || {
            control.check_alive()?;
            Ok(http_status(self.api, "/readyz").unwrap_or(0) == 200)
        })?;
        self.control = Some(control);
        Ok(())
    }

    /// SIGKILL to the control service.
    pub fn kill_control(&mut self) -> anyhow::Result<()> {
        self.control.take().context("control service is not running")?.kill()
    }

    fn control_dir(&self) -> PathBuf {
        self.dir.join("control")
    }

    /// The first operator token.
    pub fn admin_token(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.control_dir().join("admin.token"))?.trim().to_owned())
    }

    /// State folder of a proxy.
    pub fn state_dir(&self, name: &str) -> PathBuf {
        self.dir.join("state").join(name)
    }

    /// Trust roots of the mesh.
    pub fn trust_bundle(&self) -> PathBuf {
        self.control_dir().join("identity/root.crt")
    }

    /// The operator's command line; fails when it fails.
    pub fn cli(&self, args: &[&str], input: Option<&str>) -> anyhow::Result<String> {
        run(&self.bin.cli, args, &self.cli_env()?, input)
    }

    /// The operator's command line: exit code and what it said.
    pub fn cli_any(&self, args: &[&str], input: Option<&str>) -> anyhow::Result<(i32, String)> {
        let (code, out, err) = run_any(&self.bin.cli, args, &self.cli_env()?, input)?;
        Ok((code, format!("{out}{err}")))
    }

    fn cli_env(&self) -> anyhow::Result<Vec<(&'static str, String)>> {
        Ok(vec![
            ("OUTRIGGER_SERVER", format!("http://{}", self.api)),
            ("OUTRIGGER_TOKEN", self.admin_token()?),
        ])
    }

    /// Applies resources and waits until every affected proxy has them.
    pub fn apply(&self, yaml: &str) -> anyhow::Result<()> {
        self.cli(&["apply", "-f", "-", "--wait"], Some(yaml)).map(drop)
    }

    fn join_token(&self, service_account: &str, grant: &[&str]) -> anyhow::Result<String> {
        let create =
            ["token", "create", "--namespace", NAMESPACE, "--service-account", service_account, "-o", "json"];
        let answer: serde_json::Value = serde_json::from_str(&self.cli(&[&create, grant].concat(), None)?)?;
        answer.get("token").and_then(|t| t.as_str()).map(str::to_owned).context("answer holds no token")
    }

    /// Starts an application and its sidecar. `call` is the host that the application calls through the mesh.
    pub fn add_member(
        &mut self,
        name: &str,
        service: &str,
        version: &str,
        call: Option<&str>,
    ) -> anyhow::Result<()> {
        let (app_port, outbound_port) = (free_port()?, free_port()?);
        let mut args = vec!["demo-service".to_owned(), loopback(app_port).to_string(), name.to_owned()];
        if let Some(host) = call {
            args.extend([loopback(outbound_port).to_string(), host.to_owned()]);
        }
        let app = Process::start(&format!("{name}-app"), &self.bin.own, &args, &self.dir.join("logs"))?;
        let mut member = Member {
            name: name.to_owned(),
            service: service.to_owned(),
            version: version.to_owned(),
            app_port,
            inbound: loopback(free_port()?),
            outbound_port,
            admin: loopback(free_port()?),
            app,
            sidecar: None,
        };
        let token = self.join_token(service, &[])?;
        self.start_sidecar(&mut member, Some(token))?;
        self.members.push(member);
        Ok(())
    }

    /// Starts the sidecar of a member, with a token the first time and from its state folder later.
    pub fn start_sidecar(&self, member: &mut Member, token: Option<String>) -> anyhow::Result<()> {
        let mut args = self.proxy_args(&member.name, &member.service, member.admin);
        args.extend([
            format!("--service={}", member.service),
            format!("--service-version={}", member.version),
            format!("--port=http:http:80:{}", member.app_port),
            format!("--inbound-port={}", member.inbound.port()),
            format!("--outbound-port={}", member.outbound_port),
        ]);
        args.extend(token.map(|t| format!("--join-token={t}")));
        let name = format!("{}-proxy", member.name);
        member.sidecar = Some(Process::start(&name, &self.bin.proxy, &args, &self.dir.join("logs"))?);
        Ok(())
    }

    /// Starts the edge gateway.
    pub fn start_gateway(&mut self) -> anyhow::Result<SocketAddr> {
        let admin = loopback(free_port()?);
        let mut args = self.proxy_args("gateway", "gateway", admin);
        args.extend(["--role=gateway".to_owned(), "--label=app=gateway".to_owned()]);
        args.push(format!("--join-token={}", self.join_token("gateway", &["--gateway"])?));
        self.gateway = Some(Process::start("gateway", &self.bin.proxy, &args, &self.dir.join("logs"))?);
        Ok(admin)
    }

    fn proxy_args(&self, name: &str, service_account: &str, admin: SocketAddr) -> Vec<String> {
        vec![
            format!("--control={}", self.xds),
            format!("--trust-bundle={}", self.trust_bundle().display()),
            format!("--state-dir={}", self.state_dir(name).display()),
            format!("--namespace={NAMESPACE}"),
            format!("--service-account={service_account}"),
            format!("--instance-id={name}"),
            "--address=127.0.0.1".to_owned(),
            format!("--admin-address={admin}"),
            "--concurrency=1".to_owned(),
            "--drain-time-s=10".to_owned(),
        ]
    }

    /// A member by name.
    pub fn member(&mut self, name: &str) -> anyhow::Result<&mut Member> {
        self.members.iter_mut().find(|m| m.name == name).with_context(|| format!("no member {name}"))
    }

    /// Starts a stopped sidecar again, without a token.
    pub fn restart_sidecar(&mut self, name: &str) -> anyhow::Result<()> {
        let index = self.members.iter().position(|m| m.name == name).context("no such member")?;
        let mut member = self.members.remove(index);
        let result = self.start_sidecar(&mut member, None);
        self.members.insert(index, member);
        result
    }

    /// Fails when something has ended that should run.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        for process in self.control.iter_mut().chain(&mut self.gateway) {
            process.check_alive()?;
        }
        for member in &mut self.members {
            member.app.check_alive()?;
            if let Some(sidecar) = &mut member.sidecar {
                sidecar.check_alive()?;
            }
        }
        Ok(())
    }
}

/// Waits for a condition, looking every 20 ms.
pub fn wait_until(
    what: &str,
    patience: Duration,
    mut condition: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<Duration> {
    let began = Instant::now();
    while began.elapsed() < patience {
        if condition()? {
            return Ok(began.elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("{what}: not within {patience:?}")
}

/// Status of a plain GET.
pub fn http_status(address: SocketAddr, path: &str) -> anyhow::Result<u16> {
    let text = http_get(address, path)?;
    text.get(9..12).and_then(|s| s.parse().ok()).context("answer is not HTTP")
}

/// A plain GET: the whole answer.
pub fn http_get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
