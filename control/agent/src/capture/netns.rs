//! Writing and removing rules in containers' network namespaces.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::enter::{NOT_FOUND, PATH};
use super::iptables::{self, Family};
use super::{Rules, Step, nft};
use crate::config::CaptureTool;

/// Longest time for one program.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of a program's complaint that are repeated.
const COMPLAINT_BYTES_MAX: usize = 2048;

/// Where an agent in a container finds the host's files: mounted there, or by way of the host's first process.
const HOST_ROOTS: [&str; 2] = ["/host", "/proc/1/root"];

/// A container's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Docker's file for it, on the host.
    pub sandbox_key: String,
    /// A process in it.
    pub pid: i32,
}

impl Namespace {
    /// That of no container: it is gone, or it has the host's.
    pub fn none() -> Self {
        Self { sandbox_key: String::new(), pid: 0 }
    }
}

/// A future of a rule writer.
pub type Written<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send + 'a>>;

/// Who writes rules. A seam for tests: the real one needs privileges and a container.
pub trait RuleWriter: Send + Sync {
    /// Puts rules in place of those that are there.
    fn install<'a>(&'a self, namespace: &'a Namespace, rules: &'a Rules) -> Written<'a>;
    /// Takes them away; none is no error.
    fn remove<'a>(&'a self, namespace: &'a Namespace) -> Written<'a>;
}

/// Which program writes, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemWriter {
    nft: bool,
    root: Option<PathBuf>,
}

impl SystemWriter {
    /// Finds the program: in this system, else in the host's.
    ///
    /// *Errors*: there is none.
    pub fn find(tool: CaptureTool) -> anyhow::Result<Self> {
        let programs: &[&str] = match tool {
            CaptureTool::Auto => &["nft", "iptables"],
            CaptureTool::Nft => &["nft"],
            CaptureTool::Iptables => &["iptables"],
        };
        for program in programs {
            for root in std::iter::once(None).chain(HOST_ROOTS.map(|root| Some(PathBuf::from(root)))) {
                if has(root.as_deref().unwrap_or(Path::new("/")), program) {
                    return Ok(Self { nft: *program == "nft", root });
                }
            }
        }
        bail!("none of {} is installed on this host", programs.join(", "))
    }

    /// For logs.
    pub fn name(&self) -> &'static str {
        if self.nft { "nft" } else { "iptables" }
    }

    async fn run_all(&self, namespace: &Namespace, steps: &[Step]) -> anyhow::Result<()> {
        let file = file_of(namespace)?;
        for step in steps {
            if let Some(check) = &step.unless
                && self.run(&file, check, "").await?.is_ok()
            {
                continue;
            }
            let result = self.run(&file, &step.argv, &step.stdin).await?;
            if let Err(complaint) = result
                && !step.may_fail
            {
                bail!("{}: {complaint}", step.argv.join(" "));
            }
        }
        Ok(())
    }

    /// The inner error is what the program says.
    async fn run(&self, net: &Path, argv: &[String], stdin: &str) -> anyhow::Result<Result<(), String>> {
        // Not by its path: that may by now be another version of this program.
        let mut command = Command::new("/proc/self/exe");
        command.arg("enter").arg("--net").arg(net);
        if let Some(root) = &self.root {
            command.arg("--root").arg(root);
        }
        command.arg("--").args(argv);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let work = async {
            let mut child = command.spawn().context("the child cannot be started")?;
            if let Some(mut pipe) = child.stdin.take() {
                // A program that ends without reading says why itself.
                let _ = pipe.write_all(stdin.as_bytes()).await;
            }
            anyhow::Ok(child.wait_with_output().await?)
        };
        let output =
            tokio::time::timeout(STEP_TIMEOUT, work).await.with_context(|| format!("{argv:?} hangs"))??;
        if output.status.success() {
            return Ok(Ok(()));
        }
        if output.status.code() == Some(NOT_FOUND) {
            return Ok(Err("no such program".to_owned()));
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Ok(Err(said.trim().chars().take(COMPLAINT_BYTES_MAX).collect()))
    }
}

impl RuleWriter for SystemWriter {
    fn install<'a>(&'a self, namespace: &'a Namespace, rules: &'a Rules) -> Written<'a> {
        Box::pin(async move {
            if self.nft {
                return self.run_all(namespace, &nft::install(rules)).await;
            }
            for family in families(namespace) {
                self.run_all(namespace, &iptables::install(rules, family)).await?;
            }
            Ok(())
        })
    }

    fn remove<'a>(&'a self, namespace: &'a Namespace) -> Written<'a> {
        Box::pin(async move {
            if self.nft {
                return self.run_all(namespace, &nft::remove()).await;
            }
            for family in families(namespace) {
                self.run_all(namespace, &iptables::remove(family)).await?;
            }
            Ok(())
        })
    }
}

/// IPv6 only where the container has an address of it beside loopback: many hosts have no `ip6tables` that works.
fn families(namespace: &Namespace) -> Vec<Family> {
    let addresses = std::fs::read_to_string(format!("/proc/{}/net/if_inet6", namespace.pid));
    let beyond_loopback = addresses.is_ok_and(|text| {
        text.lines().any(|line| line.split_whitespace().last().is_some_and(|name| name != "lo"))
    });
    if beyond_loopback { vec![Family::V4, Family::V6] } else { vec![Family::V4] }
}

/// Docker's own file is the namespace's for as long as that lives; a process id may be another's in a moment.
fn file_of(namespace: &Namespace) -> anyhow::Result<PathBuf> {
    if let Some(file) = sandbox_files(&namespace.sandbox_key).into_iter().find(|file| is_namespace(file)) {
        return Ok(file);
    }
    ensure!(namespace.pid > 0, "the container has no process");
    Ok(format!("/proc/{}/ns/net", namespace.pid).into())
}

/// Whether a namespace is there. Where the host's mounts are not passed on into the agent's container, docker's file is seen
/// as the empty one it is mounted over. Source: statfs(2), `NSFS_MAGIC`.
fn is_namespace(file: &Path) -> bool {
    const NSFS_MAGIC: u32 = 0x6e73_6673;
    // The field's type differs between architectures; the number fits in all.
    rustix::fs::statfs(file)
        .is_ok_and(|found| u32::try_from(found.f_type).is_ok_and(|magic| magic == NSFS_MAGIC))
}

/// Where docker's file may be: as docker names it, and on the host as seen from a container. There `/var/run` would lead
/// astray: a link that begins with `/` is followed from the reader's own root.
fn sandbox_files(key: &str) -> Vec<PathBuf> {
    let Some(inside) = key.strip_prefix('/').filter(|rest| !rest.is_empty()) else { return Vec::new() };
    let real =
        inside.strip_prefix("var/run/").map_or_else(|| inside.to_owned(), |rest| format!("run/{rest}"));
    let on_host = HOST_ROOTS.iter().map(|root| Path::new(root).join(&real));
    std::iter::once(PathBuf::from(key)).chain(on_host).collect()
}

fn has(root: &Path, program: &str) -> bool {
    PATH.split(':').any(|folder| root.join(folder.trim_start_matches('/')).join(program).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_is_looked_for_on_the_host_without_its_links() {
        let files = sandbox_files("/var/run/docker/netns/1a2b");
        let expected = [
            "/var/run/docker/netns/1a2b",
            "/host/run/docker/netns/1a2b",
            "/proc/1/root/run/docker/netns/1a2b",
        ];
        assert_eq!(files, expected.map(PathBuf::from));
        assert!(sandbox_files("").is_empty());
        assert!(file_of(&Namespace::none()).is_err(), "no container, no namespace");
        assert!(
            is_namespace(Path::new("/proc/self/ns/net")) && !is_namespace(Path::new("/proc/self/status"))
        );
        let by_pid = Namespace { sandbox_key: "/nowhere/x".into(), pid: 7 };
        assert_eq!(file_of(&by_pid).unwrap(), Path::new("/proc/7/ns/net"));
    }
}
