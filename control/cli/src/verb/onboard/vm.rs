//! `outrigger onboard vm`

use std::path::PathBuf;

use super::{Join, admit, good, roots, token, wait};
use crate::Global;
use crate::client::segment;
use crate::failure::Failure;
use crate::onboard::vm;
use crate::session;

/// `onboard vm`
#[derive(clap::Args)]
pub struct OnboardVm {
    #[command(flatten)]
    join: Join,
    /// The WorkloadGroup it belongs to: GROUP.NAMESPACE. It says who it is, its labels, ports, locality and probe.
    #[arg(long, value_parser = vm::group)]
    group: (String, String),
    /// Who it is, where the group does not say it.
    #[arg(long)]
    service_account: Option<String>,
    /// The service it is an instance of. Default: that of its service account's name.
    #[arg(long)]
    service: Option<String>,
    /// The proxy's program for the machine; not needed where it is installed.
    #[arg(long)]
    proxy_binary: Option<PathBuf>,
}

impl OnboardVm {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
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
            name: self.join.name.clone(),
            control: self.join.control.clone(),
            group: self.group.clone(),
            service: self.service.clone().unwrap_or_else(|| account.clone()),
            service_account: account.clone(),
            address: self.join.address,
            locality: self.join.locality.clone(),
            binary: self.proxy_binary.clone(),
        };
        // Whatever is wrong with flags and files is found before anything is made.
        let files = machine.files(&roots, "(a join token, good for one use)")?;
        if self.join.dry_run {
            println!("would make host {} and a join token for {account}.{namespace} on it", self.join.name);
            for file in &files {
                println!("would write {} (mode {:04o}, {} bytes)", file.path, file.mode, file.bytes.len());
            }
            if self.join.root.is_none() {
                println!("would start the proxy:");
                machine.start().lines().take(3).for_each(|line| println!("  {line}"));
            }
            return Ok(());
        }
        admit(&client, &self.join.name, self.join.address).await?;
        let who = (namespace.as_str(), account.as_str());
        let token = token(&client, &self.join.name, who, self.join.token_ttl).await?;
        eprintln!("host {} may join as {account}.{namespace}", self.join.name);
        let files = machine.files(&roots, &token)?;
        let script = machine.install(&files, good(self.join.token_ttl));
        let Some(target) = self.join.at.target(self.join.root.as_ref()) else {
            return self.join.at.write(&script, &machine.offboard(), self.join.token_ttl);
        };
        target.run(&script)?;
        if self.join.root.is_some() || self.join.timeout == 0 {
            return Ok(());
        }
        wait(&client, &self.join.name, 1, self.join.timeout, global).await
    }
}
