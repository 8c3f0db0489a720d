//! Running a script on a host: here, over ssh, or by the SSM agent that every ECS Anywhere host has.
//!
//! `ssh` and `aws` are the system's own, with whatever they are configured to do. Scripts go in by standard input, or in a
//! file that only its owner can read: their join tokens are on no command line.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::failure::Failure;

/// Largest script that SSM takes with room to spare, bytes (the document and its parameters: 64 KiB).
const SSM_BYTES_MAX: usize = 48 << 10;

/// Longest wait for SSM to have run it, and between looks.
const SSM_WAIT: Duration = Duration::from_secs(600);
const SSM_POLL: Duration = Duration::from_secs(2);

/// Where the host is.
#[derive(Clone, Debug)]
pub enum Target {
    /// This machine; files below another root, for images.
    Local {
        /// Empty: this machine's own.
        root: Option<PathBuf>,
    },
    /// `[USER@]HOST`, as ssh takes it.
    Ssh(String),
    /// Managed instance, `mi-…` or `i-…`.
    Ssm(String),
}

/// What runs the rest of standard input as root.
const AS_ROOT: &str = r#"if [ "$(id -u)" -eq 0 ]; then exec sh -s; else exec sudo -n sh -s; fi"#;

impl Target {
    /// For people.
    pub fn words(&self) -> String {
        match self {
            Self::Local { root: None } => "run on this machine".to_owned(),
            Self::Local { root: Some(root) } => format!("put below {}; nothing is started", root.display()),
            Self::Ssh(to) => format!("run by `ssh {to}`, as root or with sudo"),
            Self::Ssm(id) => format!("run by SSM on {id} (`aws ssm send-command`)"),
        }
    }

    /// Runs a script there, shows what it says, and returns it.
    ///
    /// # Errors
    /// It cannot be run there, or fails there.
    pub fn run(&self, script: &str) -> Result<String, Failure> {
        match self {
            Self::Local { root } => {
                let mut command = Command::new("sh");
                command.arg("-s");
                match root {
                    Some(root) => command.env("ROOT", root),
                    None => command.env_remove("ROOT"),
                };
                feed(command, script)
            }
            Self::Ssh(to) => {
                if to.starts_with('-') {
                    return Err(Failure::Usage(format!("--ssh {to}: not a host")));
                }
                let mut command = Command::new("ssh");
                command.args(["--", to, AS_ROOT]);
                feed(command, script)
            }
            Self::Ssm(id) => ssm(id, script),
        }
    }
}

/// Gives a program the script and takes what it prints, line by line.
fn feed(mut command: Command, script: &str) -> Result<String, Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| Failure::Other(format!("{name}: {error}"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut stdin = child.stdin.take();
    let script = script.to_owned();
    // Beside reading: both pipes may fill.
    let writing = std::thread::spawn(move || {
        // A script that ends early has said why.
        let _ = stdin.as_mut().map(|stdin| stdin.write_all(script.as_bytes()));
    });
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        for line in std::io::BufRead::lines(std::io::BufReader::new(stdout)) {
            let line = line.map_err(failed)?;
            eprintln!("{line}");
            said.push_str(&line);
            said.push('\n');
        }
    }
    let status = child.wait().map_err(failed)?;
    let _ = writing.join();
    if status.success() { Ok(said) } else { Err(Failure::Other(format!("failed on the host ({status})"))) }
}

/// By SSM Run Command. What it is sent can be read there, for 30 days, by whoever may read the account's commands: join
/// tokens are used up at once, and what else is in a script is no secret.
fn ssm(id: &str, script: &str) -> Result<String, Failure> {
    if script.len() > SSM_BYTES_MAX {
        let reason = "too large for SSM: leave --agent-binary out and use --run docker";
        return Err(Failure::Usage(format!("--ssm: {} bytes, {reason}", script.len())));
    }
    let lines: Vec<&str> = script.lines().collect();
    let asked = json!({
        "DocumentName": "AWS-RunShellScript",
        "InstanceIds": [id],
        "Comment": "outrigger onboard",
        "TimeoutSeconds": 600,
        "Parameters": {"commands": lines},
    });
    let file = private_file(&asked.to_string())?;
    let input = format!("file://{}", file.0.display());
    let sent = aws(&["ssm", "send-command", "--cli-input-json", &input])?;
    let command = sent["Command"]["CommandId"].as_str().unwrap_or_default().to_owned();
    let end = Instant::now() + SSM_WAIT;
    loop {
        let arguments = ["ssm", "get-command-invocation", "--command-id", &command, "--instance-id", id];
        // A command is not known everywhere at once.
        let seen = aws(&arguments).unwrap_or_default();
        let said = seen["StandardOutputContent"].as_str().unwrap_or_default();
        match seen["Status"].as_str().unwrap_or_default() {
            "Success" => {
                eprint!("{said}");
                return Ok(said.to_owned());
            }
            "Cancelled" | "TimedOut" | "Failed" | "Undeliverable" | "Terminated" => {
                eprint!("{said}{}", seen["StandardErrorContent"].as_str().unwrap_or_default());
                return Err(Failure::Other(format!("failed on the host ({})", seen["StatusDetails"])));
            }
            _ if Instant::now() > end => {
                return Err(Failure::Other(format!("SSM command {command} did not end in time")));
            }
            _ => std::thread::sleep(SSM_POLL),
        }
    }
}

fn aws(arguments: &[&str]) -> Result<Value, Failure> {
    let mut command = Command::new("aws");
    command.args(arguments).args(["--output", "json"]).stdin(Stdio::null());
    let output = command.output().map_err(|error| Failure::Other(format!("aws: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::Other(format!("aws {}: {}", arguments[1], said.trim())));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| Failure::Other(format!("aws: {error}")))
}

/// A file only its owner can read, gone with this value.
struct PrivateFile(PathBuf);

impl Drop for PrivateFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn private_file(text: &str) -> Result<PrivateFile, Failure> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = std::env::temp_dir().join(format!("outrigger-onboard-{}.json", std::process::id()));
    let failed = |error: std::io::Error| Failure::file(&path, &error);
    let mut options = std::fs::OpenOptions::new();
    // Never through something that is there already.
    let opened = options.write(true).create_new(true).mode(0o600).open(&path);
    let mut file = opened.map_err(failed)?;
    let guard = PrivateFile(path.clone());
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(guard)
}
