//! What a host is to be, as the flags say it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use outrigger_member::label::is_label;
use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// Fields of the agent's settings that flags of their own decide.
const OWN_FIELDS: [&str; 6] = ["control", "trustBundle", "identities", "address", "locality", "clusters"];

/// An identity that tasks of the host may have.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HostIdentity {
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Task definition families that may have it; empty: those that ask for it.
    pub families: BTreeSet<String>,
}

impl HostIdentity {
    /// Reads `SERVICE-ACCOUNT.NAMESPACE[=FAMILY,FAMILY]`.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, families) = text.split_once('=').unwrap_or((text, ""));
        let (account, namespace) = name.split_once('.').ok_or("SERVICE-ACCOUNT.NAMESPACE is needed")?;
        for (part, what) in [(account, "service account"), (namespace, "namespace")] {
            if !is_label(part) {
                return Err(format!("{what} {part:?} is no DNS label"));
            }
        }
        let families = families.split(',').filter(|family| !family.is_empty()).map(str::to_owned).collect();
        Ok(Self { namespace: namespace.to_owned(), service_account: account.to_owned(), families })
    }

    /// The file with its join token, below the folder of tokens.
    pub fn token_file(&self) -> String {
        // Both are DNS labels, so the dot separates them.
        format!("{}.{}.token", self.service_account, self.namespace)
    }
}

/// Reads the name of a host.
///
/// # Errors
/// It is no DNS label.
pub fn host_name(text: &str) -> Result<String, String> {
    if is_label(text) { Ok(text.to_owned()) } else { Err("a DNS label is needed, like rack7".to_owned()) }
}

/// Reads `HOST:PORT`.
///
/// # Errors
/// It is not that.
pub fn host_port(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match port.and_then(|(_, port)| port.parse::<u16>().ok()).filter(|port| *port > 0) {
        Some(_) => Ok(text.to_owned()),
        None => Err("HOST:PORT is needed, like control.example:15012".to_owned()),
    }
}

/// How the agent runs.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum, Debug)]
pub enum RunBy {
    /// As a container; Docker is on the host anyway.
    Docker,
    /// As a unit of systemd; the program comes with `--agent-binary`, or is at /usr/bin/outrigger-agent.
    Systemd,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name at the control service.
    pub name: String,
    /// How it reaches the control service.
    pub control: Vec<String>,
    /// Who its tasks may be.
    pub identities: Vec<HostIdentity>,
    /// Where others reach it; also the only address its workloads may announce.
    pub address: Option<IpAddr>,
    /// `region/zone/sub_zone`.
    pub locality: Option<String>,
    /// ECS clusters whose tasks are looked at; empty: all.
    pub clusters: Vec<String>,
    /// Further settings of the agent: a file.
    pub settings: Option<PathBuf>,
    /// The sidecars' image, where the settings do not say it.
    pub image: Option<String>,
    /// How the agent runs.
    pub run_by: RunBy,
    /// The agent's image.
    pub agent_image: String,
    /// The agent's program, to be put onto the host.
    pub agent_binary: Option<PathBuf>,
}

impl Host {
    /// The agent's settings file. `etc` is the folder it and its tokens lie in on the host.
    ///
    /// # Errors
    /// The file of further settings: it cannot be read, is no YAML object, or sets what flags decide.
    pub fn agent_settings(&self, etc: &str) -> Result<String, Failure> {
        let mut settings = match &self.settings {
            Some(path) => further(path)?,
            None => Map::new(),
        };
        settings.insert("control".to_owned(), json!(self.control));
        settings.insert("trustBundle".to_owned(), json!(format!("{etc}/trust-bundle.pem")));
        let identity = |identity: &HostIdentity| {
            let mut rule = json!({
                "namespace": identity.namespace,
                "serviceAccount": identity.service_account,
                "joinTokenFile": format!("{etc}/tokens/{}", identity.token_file()),
            });
            if !identity.families.is_empty() {
                rule["families"] = json!(identity.families);
            }
            rule
        };
        settings.insert("identities".to_owned(), self.identities.iter().map(identity).collect());
        if let Some(address) = self.address {
            settings.insert("address".to_owned(), json!(address));
        }
        if let Some(locality) = &self.locality {
            settings.insert("locality".to_owned(), json!(locality));
        }
        if !self.clusters.is_empty() {
            settings.insert("clusters".to_owned(), json!(self.clusters));
        }
        if let Some(image) = &self.image {
            let sidecar = settings.entry("sidecar").or_insert_with(|| json!({}));
            match sidecar.as_object_mut() {
                Some(fields) => drop(fields.insert("image".to_owned(), json!(image))),
                None => return Err(Failure::Usage("--settings: sidecar must be an object".to_owned())),
            }
        }
        crate::output::yaml(&Value::Object(settings))
    }
}

fn further(path: &Path) -> Result<Map<String, Value>, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::file(path, &error))?;
    let wrong = |reason: String| Failure::Usage(format!("--settings {}: {reason}", path.display()));
    let read: Value = serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let Value::Object(fields) = read else { return Err(wrong("an object is needed".to_owned())) };
    match OWN_FIELDS.iter().find(|field| fields.contains_key(**field)) {
        Some(field) => Err(wrong(format!("{field} is set by a flag of this command"))),
        None => Ok(fields),
    }
}
