//! `outrigger onboard host`

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Join, admit, good, roots, token, wait};
use crate::Global;
use crate::failure::Failure;
use crate::onboard::bundle::{Bundle, ETC, Token};
use crate::onboard::host::{Host, HostIdentity, RunBy};
use crate::onboard::script;
use crate::session;

/// `onboard host`
#[derive(clap::Args)]
pub struct OnboardHost {
    #[command(flatten)]
    join: Join,
    /// Who its tasks may be: SERVICE-ACCOUNT.NAMESPACE, or SERVICE-ACCOUNT.NAMESPACE=FAMILY,FAMILY for tasks of these
    /// families alone. May be repeated.
    #[arg(long = "identity", required = true, value_parser = HostIdentity::parse)]
    identities: Vec<HostIdentity>,
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
}

impl OnboardHost {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = session::client(global)?;
        let host = self.host()?;
        let roots = roots(&client).await?;
        if self.join.dry_run {
            return self.rehearse(&host, &roots);
        }
        // Whatever is wrong with files and settings is found before anything is made.
        Bundle::of(&host, &roots, &[], (0, 0))?;
        admit(&client, &self.join.name, self.join.address).await?;
        let mut tokens = Vec::new();
        for identity in &host.identities {
            let who = (identity.namespace.as_str(), identity.service_account.as_str());
            let text = token(&client, &self.join.name, who, self.join.token_ttl).await?;
            tokens.push(Token { file: identity.token_file(), text });
        }
        eprintln!("host {} may join; {} join token(s) made", self.join.name, tokens.len());
        let bundle = Bundle::of(&host, &roots, &tokens, good(self.join.token_ttl))?;
        let script = script::install(&bundle);
        let Some(target) = self.join.at.target(self.join.root.as_ref()) else {
            return self.join.at.write(&script, &script::offboard(&bundle), self.join.token_ttl);
        };
        let said = target.run(&script)?;
        if self.join.root.is_some() || self.join.timeout == 0 {
            return Ok(());
        }
        let members = said.lines().rev().find_map(|line| line.strip_prefix(script::MEMBERS));
        let members = members.and_then(|count| count.trim().parse().ok()).unwrap_or(0);
        wait(&client, &self.join.name, members, self.join.timeout, global).await
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
            name: self.join.name.clone(),
            control: self.join.control.clone(),
            identities: self.identities.clone(),
            address: self.join.address,
            locality: self.join.locality.clone(),
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
        let bundle = Bundle::of(host, roots, &tokens, good(self.join.token_ttl))?;
        let bound = self.join.address.map_or_else(|| "any address".to_owned(), |address| address.to_string());
        println!("would make host {} (its workloads may announce {bound})", self.join.name);
        for identity in &host.identities {
            println!(
                "would make a join token for {}.{} on it, good for one use and {} s",
                identity.service_account, identity.namespace, self.join.token_ttl
            );
        }
        for file in &bundle.files {
            println!("would write {} (mode {:04o}, {} bytes)", file.path, file.mode, file.bytes.len());
        }
        println!("settings of the agent:");
        let settings = host.agent_settings(ETC)?;
        settings.lines().for_each(|line| println!("  {line}"));
        if self.join.root.is_none() {
            println!("would check the host:\n  {}", bundle.once("check"));
            println!("would start the agent:");
            bundle.start().iter().for_each(|line| println!("  {line}"));
        }
        let how = match (self.join.at.target(self.join.root.as_ref()), &self.join.at.bundle) {
            (Some(target), _) => target.words(),
            (None, Some(folder)) => format!("written into {}; nothing is run", folder.display()),
            (None, None) => String::new(),
        };
        println!("all of it as one script, {how}");
        Ok(())
    }
}
