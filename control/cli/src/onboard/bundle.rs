//! What a host gets: files, and how its agent is started and ended.

use std::path::Path;

use super::host::{Host, RunBy};
use crate::failure::Failure;

/// Where the agent's settings, the trust bundle and the tokens lie.
pub const ETC: &str = "/etc/outrigger";

/// Where the agent keeps its keys; its default.
pub const STATE: &str = "/var/lib/outrigger-agent";

/// The agent's program under systemd.
pub const BINARY: &str = "/usr/bin/outrigger-agent";

/// Its unit.
pub const UNIT: &str = "/etc/systemd/system/outrigger-agent.service";

/// The unit that the repository's `docker/agent` describes.
const UNIT_TEXT: &str = include_str!("../../../../docker/agent/outrigger-agent.service");

/// Largest program that is put onto a host, bytes.
const BINARY_BYTES_MAX: u64 = 256 << 20;

/// What the agent's container needs; docker/agent/README.md says why of each.
const DOCKER_FLAGS: &[&str] = &[
    "--network host --pid host --read-only",
    "--cap-drop ALL --cap-add SYS_ADMIN --cap-add NET_ADMIN --cap-add NET_RAW --cap-add SYS_PTRACE",
    "--cap-add SYS_CHROOT --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER",
    "--security-opt apparmor=unconfined --memory 64m",
    "-v /var/run/docker.sock:/var/run/docker.sock",
    "-v /etc/outrigger:/etc/outrigger:ro",
    "-v /var/lib/outrigger-agent:/var/lib/outrigger-agent",
    "-v /:/host:rslave",
];

/// One file on the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    /// Where.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Whether it may not be shown.
    pub secret: bool,
}

impl File {
    /// One that may be shown.
    pub fn new(path: String, mode: u32, bytes: &[u8]) -> Self {
        Self { path, mode, bytes: bytes.to_vec(), secret: false }
    }
}

/// A program of this machine, to be put onto another.
///
/// # Errors
/// It cannot be read, or is too large.
pub fn program(from: &Path, to: &str) -> Result<File, Failure> {
    let about = from.metadata().map_err(|error| Failure::file(from, &error))?;
    if about.len() > BINARY_BYTES_MAX {
        return Err(Failure::Usage(format!("{}: larger than 256 MiB", from.display())));
    }
    let bytes = std::fs::read(from).map_err(|error| Failure::file(from, &error))?;
    Ok(File { bytes, ..File::new(to.to_owned(), 0o755, &[]) })
}

/// A join token and whose it is.
pub struct Token {
    /// Name of its file.
    pub file: String,
    /// The token.
    pub text: String,
}

/// See the module.
pub struct Bundle {
    /// The host's name.
    pub name: String,
    /// How the agent runs.
    pub run_by: RunBy,
    /// Its image, when it runs in Docker.
    pub agent_image: String,
    /// What is put onto the host.
    pub files: Vec<File>,
    /// Seconds since 1970: when it was made, and when its tokens expire.
    pub good: (i64, i64),
}

impl Bundle {
    /// Puts it together.
    ///
    /// # Errors
    /// Files that cannot be read; settings that cannot be.
    pub fn of(host: &Host, roots_pem: &str, tokens: &[Token], good: (i64, i64)) -> Result<Self, Failure> {
        let settings = host.agent_settings(ETC)?;
        let mut files = vec![
            File::new(format!("{ETC}/trust-bundle.pem"), 0o644, roots_pem.as_bytes()),
            File::new(format!("{ETC}/agent.yaml"), 0o600, settings.as_bytes()),
        ];
        for token in tokens {
            let path = format!("{ETC}/tokens/{}", token.file);
            let text = format!("{}\n", token.text);
            files.push(File { secret: true, ..File::new(path, 0o600, text.as_bytes()) });
        }
        if host.run_by == RunBy::Systemd {
            files.push(File::new(UNIT.to_owned(), 0o644, UNIT_TEXT.as_bytes()));
            if let Some(path) = &host.agent_binary {
                files.push(program(path, BINARY)?);
            }
        }
        let mut bundle = Self {
            name: host.name.clone(),
            run_by: host.run_by,
            agent_image: host.agent_image.clone(),
            files,
            good,
        };
        let offboard = super::script::offboard(&bundle);
        let path = super::script::offboard_file(&host.name);
        bundle.files.push(File::new(path, 0o700, offboard.as_bytes()));
        Ok(bundle)
    }

    /// The agent's command line for a verb of its own, which runs to its end.
    pub fn once(&self, verb: &str) -> String {
        match self.run_by {
            RunBy::Systemd => format!("{BINARY} {verb} --config {ETC}/agent.yaml"),
            RunBy::Docker => {
                format!(
                    "docker run --rm {} \\\n  {} {verb} --config {ETC}/agent.yaml",
                    flags(),
                    self.agent_image
                )
            }
        }
    }

    /// The agent's command line for a question to the one that runs.
    pub fn ask(&self, verb: &str) -> String {
        match self.run_by {
            RunBy::Systemd => format!("{BINARY} {verb}"),
            RunBy::Docker => format!("docker exec outrigger-agent outrigger-agent {verb}"),
        }
    }

    /// What starts it, or starts it again with what is new.
    pub fn start(&self) -> Vec<String> {
        match self.run_by {
            RunBy::Systemd => vec![
                "systemctl daemon-reload".to_owned(),
                "systemctl enable outrigger-agent".to_owned(),
                "systemctl restart outrigger-agent".to_owned(),
            ],
            RunBy::Docker => vec![
                "docker rm -f outrigger-agent >/dev/null 2>&1 || true".to_owned(),
                format!(
                    "docker run -d --name outrigger-agent --restart unless-stopped {} \\\n  {} run --config {ETC}/agent.yaml >/dev/null",
                    flags(),
                    self.agent_image
                ),
            ],
        }
    }

    /// What ends it.
    pub fn stop(&self) -> &'static str {
        match self.run_by {
            RunBy::Systemd => "systemctl disable --now outrigger-agent",
            RunBy::Docker => "docker rm -f outrigger-agent",
        }
    }
}

fn flags() -> String {
    DOCKER_FLAGS.join(" \\\n  ")
}
