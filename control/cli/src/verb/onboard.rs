//! `outrigger onboard`, `outrigger offboard`, `outrigger host`

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Global;
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::onboard::bundle::{Bundle, ETC, Token};
use crate::onboard::deliver::Target;
use crate::onboard::host::{Host, HostIdentity, RunBy, host_name, host_port};
use crate::onboard::{script, vm};
use crate::output::{self, Table, cell};
use crate::session;

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

/// Offboarding.
#[derive(clap::Subcommand)]
pub enum Offboard {
    /// Take a host out of the mesh: give its tasks back, remove the agent, revoke what the host was given.
    Host(OffboardHost),
    /// Take a machine out of the mesh: end and remove its proxy, revoke what it was given.
    Vm(OffboardHost),
}

/// Hosts.
#[derive(clap::Subcommand)]
pub enum HostVerb {
    /// Every host that was onboarded, those too that were revoked.
    List,
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

/// `onboard host`
#[derive(clap::Args)]
pub struct OnboardHost {
    /// Its name, a DNS label.
    #[arg(long, value_parser = host_name)]
    name: String,
    #[command(flatten)]
    at: Where,
    /// The control service's mesh port, as the host reaches it: HOST:PORT. May be repeated.
    #[arg(long, required = true, value_parser = host_port)]
    control: Vec<String>,
    /// Who its tasks may be: SERVICE-ACCOUNT.NAMESPACE, or SERVICE-ACCOUNT.NAMESPACE=FAMILY,FAMILY for tasks of these
    /// families alone. May be repeated.
    #[arg(long = "identity", required = true, value_parser = HostIdentity::parse)]
    identities: Vec<HostIdentity>,
    /// Where other hosts reach it. Its workloads may then announce no other address. Default: that of its default route,
    /// and any.
    #[arg(long)]
    address: Option<IpAddr>,
    /// Where it is: REGION/ZONE/SUB-ZONE.
    #[arg(long)]
    locality: Option<String>,
    /// Look at the tasks of this ECS cluster only, by short name. May be repeated.
    #[arg(long = "cluster")]
    clusters: Vec<String>,
    /// YAML file with further settings of the agent (services, sidecar, capture, …).
    #[arg(long)]
    settings: Option<PathBuf>,
    /// Image of the sidecars.
    #[arg(long)]
    image: Option<String>,
    /// How the agent runs.
    #[arg(long, value_enum, default_value_t = RunBy::Docker)]
    run: RunBy,
    /// Image of the agent.
    #[arg(long, default_value = "outrigger-agent:latest")]
    agent_image: String,
    /// The agent's program for the host, with --run systemd; not needed where it is installed.
    #[arg(long)]
    agent_binary: Option<PathBuf>,
    /// How long the join tokens are good for.
    #[arg(long, default_value = "1h", value_parser = super::seconds)]
    token_ttl: u64,
    /// With --local: put files below this folder and start nothing.
    #[arg(long, requires = "local")]
    root: Option<PathBuf>,
    /// Longest wait for its tasks to be in the mesh; 0s: do not wait.
    #[arg(long, default_value = "2m", value_parser = super::wait_seconds)]
    timeout: u64,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// `onboard vm`
#[derive(clap::Args)]
pub struct OnboardVm {
    /// Its name, a DNS label.
    #[arg(long, value_parser = host_name)]
    name: String,
    #[command(flatten)]
    at: Where,
    /// The control service's mesh port, as the machine reaches it: HOST:PORT. May be repeated.
    #[arg(long, required = true, value_parser = host_port)]
    control: Vec<String>,
    /// The WorkloadGroup it belongs to: GROUP.NAMESPACE. It says who it is, its labels, ports, locality and probe.
    #[arg(long, value_parser = vm::group)]
    group: (String, String),
    /// Who it is, where the group does not say it.
    #[arg(long)]
    service_account: Option<String>,
    /// The service it is an instance of. Default: that of its service account's name.
    #[arg(long)]
    service: Option<String>,
    /// Where other hosts reach it. It may then announce no other address. Default: that of the route to the control service.
    #[arg(long)]
    address: Option<IpAddr>,
    /// Where it is: REGION/ZONE/SUB-ZONE. Default: what the group says.
    #[arg(long)]
    locality: Option<String>,
    /// The proxy's program for the machine; not needed where it is installed.
    #[arg(long)]
    proxy_binary: Option<PathBuf>,
    /// How long the join token is good for.
    #[arg(long, default_value = "1h", value_parser = super::seconds)]
    token_ttl: u64,
    /// With --local: put files below this folder and start nothing.
    #[arg(long, requires = "local")]
    root: Option<PathBuf>,
    /// Longest wait for it to be in the mesh; 0s: do not wait.
    #[arg(long, default_value = "2m", value_parser = super::wait_seconds)]
    timeout: u64,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// `offboard host`, `offboard vm`
#[derive(clap::Args)]
pub struct OffboardHost {
    /// Its name.
    #[arg(long, value_parser = host_name)]
    name: String,
    #[command(flatten)]
    at: OffboardWhere,
    /// With --local: files are below this folder.
    #[arg(long, requires = "local")]
    root: Option<PathBuf>,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Where the host is: one of these.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub struct OffboardWhere {
    /// This machine.
    #[arg(long)]
    local: bool,
    /// Another machine, by the system's ssh.
    #[arg(long, value_name = "[USER@]HOST")]
    ssh: Option<String>,
    /// A managed instance, by SSM Run Command.
    #[arg(long, value_name = "ID")]
    ssm: Option<String>,
    /// The host is lost, or was offboarded by its own /etc/outrigger/offboard-NAME.sh: only revoke what it was given.
    #[arg(long)]
    revoke_only: bool,
}

impl Onboard {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Host(verb) => verb.run(global).await,
            Self::Vm(verb) => verb.run(global).await,
        }
    }
}

impl Offboard {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let (Self::Host(verb) | Self::Vm(verb)) = self;
        verb.run(global).await
    }
}

impl HostVerb {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let Self::List = self;
        let answer = session::client(global)?.get("/api/v1/hosts").await?;
        output::print(global.output, &answer, hosts)
    }
}

impl OnboardHost {
    async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = session::client(global)?;
        let host = self.host()?;
        let roots = roots(&client).await?;
        if self.dry_run {
            return self.rehearse(&host, &roots);
        }
        // Whatever is wrong with files and settings is found before anything is made.
        Bundle::of(&host, &roots, &[], (0, 0))?;
        admit(&client, &self.name, self.address).await?;
        let mut tokens = Vec::new();
        for identity in &host.identities {
            let who = (identity.namespace.as_str(), identity.service_account.as_str());
            let text = token(&client, &self.name, who, self.token_ttl).await?;
            tokens.push(Token { file: identity.token_file(), text });
        }
        eprintln!("host {} may join; {} join token(s) made", self.name, tokens.len());
        let bundle = Bundle::of(&host, &roots, &tokens, good(self.token_ttl))?;
        let script = script::install(&bundle);
        let Some(target) = self.at.target(self.root.as_ref()) else {
            return self.at.write(&script, &script::offboard(&bundle), self.token_ttl);
        };
        let said = target.run(&script)?;
        if self.root.is_some() || self.timeout == 0 {
            return Ok(());
        }
        let members = said.lines().rev().find_map(|line| line.strip_prefix(script::MEMBERS));
        let members = members.and_then(|count| count.trim().parse().ok()).unwrap_or(0);
        wait(&client, &self.name, members, self.timeout, global).await
    }

    fn host(&self) -> Result<Host, Failure> {
        if self.agent_binary.is_some() && self.run == RunBy::Docker {
            return Err(Failure::Usage("--agent-binary is for --run systemd".to_owned()));
        }
        let names = self.identities.iter().map(|one| (&one.namespace, &one.service_account));
        if names.collect::<BTreeSet<_>>().len() < self.identities.len() {
            return Err(Failure::Usage("--identity: one of them is given twice".to_owned()));
        }
        for (flag, image) in [("--agent-image", Some(&self.agent_image)), ("--image", self.image.as_ref())] {
            let plain = |c: char| c.is_ascii_alphanumeric() || "./:@_-".contains(c);
            if image
                .is_some_and(|image| image.starts_with('-') || image.is_empty() || !image.chars().all(plain))
            {
                return Err(Failure::Usage(format!("{flag}: not the name of an image")));
            }
        }
        Ok(Host {
            name: self.name.clone(),
            control: self.control.clone(),
            identities: self.identities.clone(),
            address: self.address,
            locality: self.locality.clone(),
            clusters: self.clusters.clone(),
            settings: self.settings.clone(),
            image: self.image.clone(),
            run_by: self.run,
            agent_image: self.agent_image.clone(),
            agent_binary: self.agent_binary.clone(),
        })
    }

    fn rehearse(&self, host: &Host, roots: &str) -> Result<(), Failure> {
        let masked = |identity: &HostIdentity| Token {
            file: identity.token_file(),
            text: "(a join token, good for one use)".to_owned(),
        };
        let tokens: Vec<Token> = host.identities.iter().map(masked).collect();
        let bundle = Bundle::of(host, roots, &tokens, good(self.token_ttl))?;
        let bound = self.address.map_or_else(|| "any address".to_owned(), |address| address.to_string());
        println!("would make host {} (its workloads may announce {bound})", self.name);
        for identity in &host.identities {
            println!(
                "would make a join token for {}.{} on it, good for one use and {} s",
                identity.service_account, identity.namespace, self.token_ttl
            );
        }
        for file in &bundle.files {
            println!("would write {} (mode {:04o}, {} bytes)", file.path, file.mode, file.bytes.len());
        }
        println!("settings of the agent:");
        let settings = host.agent_settings(ETC)?;
        settings.lines().for_each(|line| println!("  {line}"));
        if self.root.is_none() {
            println!("would check the host:\n  {}", bundle.once("check"));
            println!("would start the agent:");
            bundle.start().iter().for_each(|line| println!("  {line}"));
        }
        let how = match (self.at.target(self.root.as_ref()), &self.at.bundle) {
            (Some(target), _) => target.words(),
            (None, Some(folder)) => format!("written into {}; nothing is run", folder.display()),
            (None, None) => String::new(),
        };
        println!("all of it as one script, {how}");
        Ok(())
    }
}

impl OnboardVm {
    async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = session::client(global)?;
        let roots = roots(&client).await?;
        let (group, namespace) = &self.group;
        let path = format!("/api/v1/resources/WorkloadGroup/{}/{}", segment(namespace), segment(group));
        let said = vm::account_of(&client.get(&path).await?);
        let account = match (said, self.service_account.clone()) {
            (Some(said), Some(given)) if said != given => {
                return Err(Failure::Usage(format!(
                    "--service-account: WorkloadGroup {group} is for {said}"
                )));
            }
            (Some(account), _) | (None, Some(account)) => account,
            (None, None) => {
                let reason = format!("WorkloadGroup {group} names no serviceAccount: give --service-account");
                return Err(Failure::Usage(reason));
            }
        };
        let machine = vm::Vm {
            name: self.name.clone(),
            control: self.control.clone(),
            group: self.group.clone(),
            service: self.service.clone().unwrap_or_else(|| account.clone()),
            service_account: account.clone(),
            address: self.address,
            locality: self.locality.clone(),
            binary: self.proxy_binary.clone(),
        };
        // Whatever is wrong with flags and files is found before anything is made.
        let files = machine.files(&roots, "(a join token, good for one use)")?;
        if self.dry_run {
            println!("would make host {} and a join token for {account}.{namespace} on it", self.name);
            for file in &files {
                println!("would write {} (mode {:04o}, {} bytes)", file.path, file.mode, file.bytes.len());
            }
            if self.root.is_none() {
                println!("would start the proxy:");
                machine.start().lines().take(3).for_each(|line| println!("  {line}"));
            }
            return Ok(());
        }
        admit(&client, &self.name, self.address).await?;
        let who = (namespace.as_str(), account.as_str());
        let token = token(&client, &self.name, who, self.token_ttl).await?;
        eprintln!("host {} may join as {account}.{namespace}", self.name);
        let files = machine.files(&roots, &token)?;
        let script = machine.install(&files, good(self.token_ttl));
        let Some(target) = self.at.target(self.root.as_ref()) else {
            return self.at.write(&script, &machine.offboard(), self.token_ttl);
        };
        target.run(&script)?;
        if self.root.is_some() || self.timeout == 0 {
            return Ok(());
        }
        wait(&client, &self.name, 1, self.timeout, global).await
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

impl OffboardHost {
    async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = session::client(global)?;
        let known = client.get("/api/v1/hosts").await?;
        if !output::items(&known).iter().any(|host| host["name"] == json!(self.name)) {
            return Err(Failure::NotFound(format!("host {}", self.name)));
        }
        let target = self.target();
        // Its own script knows how it was brought in. Gone: it is out already.
        let script = format!(
            "script=\"${{ROOT:-}}{}\"\nif [ -e \"$script\" ]; then sh \"$script\"; else echo 'outrigger: nothing of Outrigger is on this host'; fi\n",
            script::offboard_file(&self.name)
        );
        if self.dry_run {
            if let Some(target) = &target {
                println!(
                    "would stop it, give its tasks back, and remove its files: {}",
                    script::offboard_file(&self.name)
                );
                println!("  {}", target.words());
            }
            println!("would revoke host {}: its join tokens, its workloads, its certificates", self.name);
            return Ok(());
        }
        if let Some(target) = &target {
            target.run(&script).map_err(|failure| {
                Failure::Other(format!(
                    "{failure}\nhost {} was not revoked: offboard it again, or give --revoke-only",
                    self.name
                ))
            })?;
        }
        let path = format!("/api/v1/hosts/{}", segment(&self.name));
        let answer = client.call(Method::DELETE, &path, "", Duration::ZERO).await?;
        println!(
            "host {} revoked; withdrawn: {} join token(s), {} workload(s)",
            self.name, answer["tokensWithdrawn"], answer["workloadsWithdrawn"]
        );
        Ok(())
    }

    fn target(&self) -> Option<Target> {
        let at = &self.at;
        at.local
            .then(|| Target::Local { root: self.root.clone() })
            .or_else(|| at.ssh.clone().map(Target::Ssh))
            .or_else(|| at.ssm.clone().map(Target::Ssm))
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

fn hosts(answer: &Value) -> Table {
    let mut table = Table::new(&["NAME", "ADDRESSES", "WORKLOADS", "REVOKED"]);
    for item in output::items(answer) {
        let fields = ["name", "addresses", "workloads", "revokedAt"];
        table.row(fields.iter().map(|field| cell(&item[*field])).collect());
    }
    table
}
