//! The operator of the demo in containers (`docker/compose.yaml`): runs once, beside the control service, and leaves what
//! the proxies need to join.
//!
//! `xtask demo-setup DATA JOIN OPERATOR`: folder of the control service; folder for trust bundle, join tokens and the
//! public CA; folder for the operator's login.

use super::mesh::{NAMESPACE, http_status, wait_until};
use super::process::run as run_program;
use super::{public_certificate, resources};
use anyhow::Context;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// Where the gateway's container listens.
const GATEWAY: ([u8; 4], u16) = ([0, 0, 0, 0], 8443);
/// The operator API, in the network namespace of the control service.
const API: ([u8; 4], u16) = ([127, 0, 0, 1], 15080);
/// Service accounts, how many proxies join as each, and what these may be besides the service of the same name.
const MEMBERS: &[(&str, &str, &[&str])] =
    &[("a", "1", &[]), ("b", "2", &[]), ("gateway", "1", &["--gateway"])];

/// Does nothing where it was done before: the file written last tells.
pub fn run(args: &[String]) -> anyhow::Result<()> {
    let [data, join, operator] = args else { anyhow::bail!("demo-setup DATA JOIN OPERATOR") };
    let (data, join) = (Path::new(data), Path::new(join));
    let done = join.join("public-ca.pem");
    if done.exists() {
        println!("was set up before");
        return Ok(());
    }
    let api = SocketAddr::from(API);
    wait_until("control service", Duration::from_secs(60), || {
        Ok(http_status(api, "/readyz").unwrap_or(0) == 200)
    })?;
    let token = fs::read_to_string(data.join("admin.token")).context("admin.token")?.trim().to_owned();
    let cli = std::env::current_exe()?.with_file_name("outrigger");
    let env = [
        ("OUTRIGGER_SERVER", format!("http://{api}")),
        ("OUTRIGGER_TOKEN", token),
        ("XDG_CONFIG_HOME", operator.clone()),
    ];
    let outrigger = |args: &[&str], input: Option<&str>| run_program(&cli, args, &env, input);
    outrigger(&["login"], None)?;
    fs::copy(data.join("identity/root.crt"), join.join("trust-bundle.pem")).context("trust bundle")?;
    for (account, uses, grant) in MEMBERS {
        let create = ["token", "create", "-n", NAMESPACE, "-s", account, "--uses", uses];
        let token = outrigger(&[&create, *grant].concat(), None)?;
        write_private(&join.join(format!("{account}.token")), &token)?;
    }
    let public = public_certificate()?;
    let edge = resources::edge(SocketAddr::from(GATEWAY), &public.certificate_pem, &public.key_pem);
    for yaml in [resources::subsets(), resources::split(100, 0, ""), edge] {
        print!("{}", outrigger(&["apply", "-f", "-"], Some(&yaml))?);
    }
    fs::write(&done, public.ca_pem)?;
    println!("set up");
    Ok(())
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("{}", path.display()))
}
