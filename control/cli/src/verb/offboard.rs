//! `outrigger offboard`

use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::Global;
use crate::client::segment;
use crate::failure::Failure;
use crate::onboard::deliver::Target;
use crate::onboard::host::host_name;
use crate::onboard::script;
use crate::output;
use crate::session;

/// Offboarding.
#[derive(clap::Subcommand)]
pub enum Offboard {
    /// Take a host out of the mesh: give its tasks back, remove the agent, revoke what the host was given.
    Host(OffboardHost),
    /// Take a machine out of the mesh: end and remove its proxy, revoke what it was given.
    Vm(OffboardHost),
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

impl Offboard {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let (Self::Host(verb) | Self::Vm(verb)) = self;
        verb.run(global).await
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
