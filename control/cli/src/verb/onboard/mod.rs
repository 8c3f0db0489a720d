//! `outrigger onboard`: what hosts and single machines have in common.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Global;
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::onboard::deliver::Target;
use crate::onboard::host::{host_name, host_port};
use crate::output::{self, cell};

mod host;
mod vm;

use host::OnboardHost;
use vm::OnboardVm;

/// Between two looks at what is in the mesh.
const POLL: Duration = Duration::from_millis(500);

/// Onboarding.
#[derive(clap::Subcommand)]
pub enum Onboard {
    /// Bring an ECS Anywhere or EC2 host into the mesh: its entry, join tokens, the host agent with its settings.
    Host(Box<OnboardHost>),
    /// Bring a machine with one application into the mesh: its entry, a join token, a proxy under systemd.
    Vm(Box<OnboardVm>),
}

/// Where the host is: one of these.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub struct Where {
    /// This machine.
    #[arg(long)]
    local: bool,
    /// Another machine, by the system's ssh; as root, or a user with sudo.
    #[arg(long, value_name = "[USER@]HOST")]
    ssh: Option<String>,
    /// A managed instance (mi-… or i-…), by SSM Run Command and the system's aws.
    #[arg(long, value_name = "ID")]
    ssm: Option<String>,
    /// Nowhere yet: write the scripts into this folder, to be run on the host as root.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
}

/// Who joins, from where, and how it is brought about.
#[derive(clap::Args)]
struct Join {
    /// Its name, a DNS label.
    #[arg(long, value_parser = host_name)]
    name: String,
    #[command(flatten)]
    at: Where,
    /// The control service's mesh port, as it is reached from there: HOST:PORT. May be repeated.
    #[arg(long, required = true, value_parser = host_port)]
    control: Vec<String>,
    /// Where other hosts reach it. Its workloads may then announce no other address. Default: that of its default route,
    /// and any.
    #[arg(long)]
    address: Option<IpAddr>,
    /// Where it is: REGION/ZONE/SUB-ZONE. Default for a VM: what its group says.
    #[arg(long)]
    locality: Option<String>,
    /// How long join tokens are good for.
    #[arg(long, default_value = "1h", value_parser = crate::verb::seconds)]
    token_ttl: u64,
    /// With --local: put files below this folder and start nothing.
    #[arg(long, requires = "local")]
    root: Option<PathBuf>,
    /// Longest wait for its workloads to be in the mesh; 0s: do not wait.
    #[arg(long, default_value = "2m", value_parser = crate::verb::wait_seconds)]
    timeout: u64,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Onboard {
    pub(in crate::verb) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Host(verb) => verb.run(global).await,
            Self::Vm(verb) => verb.run(global).await,
        }
    }
}

impl Where {
    /// `None`: nowhere yet.
    fn target(&self, root: Option<&PathBuf>) -> Option<Target> {
        self.local
            .then(|| Target::Local { root: root.cloned() })
            .or_else(|| self.ssh.clone().map(Target::Ssh))
            .or_else(|| self.ssm.clone().map(Target::Ssm))
    }

    fn write(&self, install: &str, offboard: &str, token_ttl: u64) -> Result<(), Failure> {
        let Some(folder) = &self.bundle else { return Ok(()) };
        std::fs::create_dir_all(folder).map_err(|error| Failure::file(folder, &error))?;
        write_private(&folder.join("install.sh"), install)?;
        write_private(&folder.join("offboard.sh"), offboard)?;
        println!("{}", folder.join("install.sh").display());
        eprintln!("run it on the host as root within {} min; it has join tokens in it", token_ttl / 60);
        Ok(())
    }
}

/// Makes the host, and withdraws the tokens of an onboarding of it that came to nothing.
async fn admit(client: &Client, name: &str, address: Option<IpAddr>) -> Result<(), Failure> {
    let path = format!("/api/v1/hosts/{}", segment(name));
    let addresses: Vec<IpAddr> = address.into_iter().collect();
    let body = json!({ "addresses": addresses }).to_string();
    client.call(Method::PUT, &path, &body, Duration::ZERO).await?;
    for token in output::items(&client.get("/api/v1/tokens").await?) {
        if token["host"] == json!(name) {
            let path = format!("/api/v1/tokens/{}", segment(&cell(&token["id"])));
            client.call(Method::DELETE, &path, "", Duration::ZERO).await?;
        }
    }
    Ok(())
}

/// A join token for one use on a host.
async fn token(
    client: &Client,
    host: &str,
    (namespace, account): (&str, &str),
    ttl: u64,
) -> Result<String, Failure> {
    let asked = json!({
        "namespace": namespace, "serviceAccount": account, "uses": 1, "ttlSeconds": ttl, "host": host,
    });
    let answer = client.post("/api/v1/tokens", &asked).await?;
    Ok(answer["token"].as_str().unwrap_or_default().to_owned())
}

/// From when to when a bundle is good, seconds since 1970.
fn good(token_ttl: u64) -> (i64, i64) {
    let now = jiff::Timestamp::now().as_second();
    (now, now.saturating_add(i64::try_from(token_ttl).unwrap_or(i64::MAX)))
}

/// Until as many workloads of a host are in the mesh as are to be.
async fn wait(
    client: &Client,
    host: &str,
    members: usize,
    timeout: u64,
    global: &Global,
) -> Result<(), Failure> {
    let end = Instant::now() + Duration::from_secs(timeout);
    loop {
        let answer = client.get("/api/v1/workloads").await?;
        let ours: Vec<Value> =
            output::items(&answer).iter().filter(|item| item["host"] == json!(host)).cloned().collect();
        let ready = ours.iter().filter(|item| item["proxyConnected"] == json!(true)).count();
        if ready >= members {
            eprintln!("host {host} is in the mesh with {ready} workload(s)");
            return output::print(global.output, &json!({ "items": ours }), super::workload::table);
        }
        if Instant::now() > end {
            return Err(Failure::NotAcknowledged(format!(
                "it runs, but of {members} workload(s) only {ready} are in the mesh after {timeout} s; see its log on the host"
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What the host is to trust for its first contact.
async fn roots(client: &Client) -> Result<String, Failure> {
    let answer = client.get("/api/v1/ca").await?;
    match answer["rootCertificate"].as_str() {
        Some(pem) if !pem.is_empty() => Ok(pem.to_owned()),
        _ => Err(Failure::Other("the server does not show its root certificate".to_owned())),
    }
}

fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |error: std::io::Error| Failure::file(path, &error);
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(path);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)
}
