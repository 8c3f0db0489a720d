//! Whether this host has what the agent needs, before anything is started: for whoever prepares a host.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::address;
use crate::capture::netns::SystemWriter;
use crate::config::{AgentConfig, IdentityRule};
use crate::docker::Docker;
use crate::identity::client;
use outrigger_member::svid::{Svid, anonymous_client_config};

/// Longest time for one of docker's answers.
const DOCKER_MAX: Duration = Duration::from_secs(10);

/// The first kernel that redirects in nft's `inet` tables (Linux 5.2), and what is asked of one with `iptables`, which
/// did so long before.
const KERNEL_MIN: (u32, u32) = (5, 2);

/// One thing that was looked at.
#[derive(Debug)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// What was seen, or why it does not do.
    pub outcome: anyhow::Result<String>,
}

/// Looks at everything; the order is that in which a host is prepared.
pub async fn check(config: &Arc<AgentConfig>) -> Vec<Finding> {
    let tool = tool(config);
    let nft = tool.as_ref().is_ok_and(|name| name == "nft");
    vec![
        Finding { what: "kernel", outcome: kernel(nft) },
        Finding { what: "redirection", outcome: tool },
        Finding { what: "docker", outcome: docker(config).await },
        Finding { what: "address", outcome: host_address(config) },
        Finding { what: "identities", outcome: identities(config) },
        Finding { what: "control service", outcome: control(config).await },
    ]
}

fn kernel(nft: bool) -> anyhow::Result<String> {
    ensure!(std::path::Path::new("/proc/self/ns/net").exists(), "it has no network namespaces");
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let version = version(&release).with_context(|| format!("release `{release}` is none that is known"))?;
    let (major, minor) = KERNEL_MIN;
    ensure!(
        !nft || version >= KERNEL_MIN,
        "{release}: nft redirects from Linux {major}.{minor} on; set capture.tool to iptables"
    );
    Ok(release)
}

/// Major and minor number of a release like `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn tool(config: &AgentConfig) -> anyhow::Result<String> {
    if !config.capture.enabled {
        return Ok("off by capture.enabled".to_owned());
    }
    SystemWriter::find(config.capture.tool).map(|writer| writer.name().to_owned())
}

async fn docker(config: &AgentConfig) -> anyhow::Result<String> {
    let image = &config.sidecar.image;
    let look = async {
        let docker = Docker::connect(&config.docker).await?;
        anyhow::Ok(docker.image(image).await?.is_some())
    };
    let there = tokio::time::timeout(DOCKER_MAX, look).await.context("no answer in time")?;
    let there = there.with_context(|| config.docker.display().to_string())?;
    ensure!(there || config.sidecar.pull, "image {image} is not on this host, and sidecar.pull is off");
    Ok(if there { format!("has {image}") } else { format!("answers; {image} will be fetched") })
}

fn host_address(config: &AgentConfig) -> anyhow::Result<String> {
    let address = config.address.or_else(address::of_default_route);
    let address = address.context("this host has no default route: set `address`")?;
    Ok(match address::is_ours(address) {
        true => address.to_string(),
        false => format!("{address}, which no interface has: others must be led here by translation"),
    })
}

fn identities(config: &AgentConfig) -> anyhow::Result<String> {
    for rule in &config.identities {
        identity(config, rule).with_context(|| format!("{}.{}", rule.service_account, rule.namespace))?;
    }
    Ok(format!("{}", config.identities.len()))
}

/// A certificate, or a token that nobody else can read.
fn identity(config: &AgentConfig, rule: &IdentityRule) -> anyhow::Result<()> {
    let folder =
        config.state_dir.join("identity").join(format!("{}.{}", rule.namespace, rule.service_account));
    if Svid::load(&folder).is_some() {
        return Ok(());
    }
    let Some(path) = &rule.join_token_file else { bail!("no certificate on disk and no joinTokenFile") };
    let about = path.metadata().with_context(|| format!("joinTokenFile {}", path.display()))?;
    let mode = about.permissions().mode();
    ensure!(
        mode & 0o077 == 0,
        "joinTokenFile {}: others may read it (mode {:o})",
        path.display(),
        mode & 0o777
    );
    Ok(())
}

/// Every address must answer, with a certificate of the mesh: one that does not would be found out in an outage.
async fn control(config: &AgentConfig) -> anyhow::Result<String> {
    let path = &config.trust_bundle;
    let named = || format!("trustBundle {}", path.display());
    let roots = std::fs::read_to_string(path).with_context(named)?;
    let tls = anonymous_client_config(&roots).with_context(named)?;
    for address in &config.control {
        let one = std::slice::from_ref(address);
        let asked = client::connect(one, &config.control_name(), &tls).await;
        asked.with_context(|| format!("{address} (is this host's clock right?)"))?;
    }
    Ok(config.control.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_release_is_read() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.15.0"), Some((5, 15)));
        assert_eq!(version("4.19-rc2"), Some((4, 19)));
        assert_eq!((version("six"), version("6"), version("")), (None, None, None));
    }

    #[tokio::test]
    async fn host_that_lacks_everything_is_told_each_thing() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(dir.path().join("token"), "ojt_00_00").unwrap();
        let mut open = std::fs::metadata(dir.path().join("token")).unwrap().permissions();
        open.set_mode(0o644);
        std::fs::set_permissions(dir.path().join("token"), open).unwrap();
        let text = format!(
            "control: ['127.0.0.1:1']\ntrustBundle: {}\ndocker: {}\nstateDir: {}\naddress: 127.0.0.1\nidentities:\n- {{namespace: a, serviceAccount: b, joinTokenFile: {}}}\n",
            at("none.pem"),
            at("none.sock"),
            at("state"),
            at("token")
        );
        let findings = check(&Arc::new(AgentConfig::parse(&text).unwrap())).await;
        let said = |what: &str| {
            let found = findings.iter().find(|finding| finding.what == what).unwrap();
            found.outcome.as_ref().map_err(|error| format!("{error:#}")).cloned()
        };
        assert_eq!(said("address").unwrap(), "127.0.0.1");
        assert!(said("kernel").is_ok());
        assert!(said("docker").unwrap_err().contains("none.sock"));
        assert!(said("identities").unwrap_err().contains("b.a: joinTokenFile"), "{:?}", said("identities"));
        assert!(said("control service").unwrap_err().contains("none.pem"));
    }
}
