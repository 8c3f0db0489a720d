//! `cargo xtask peers [NAME…]`: what needs other people's programs. Installs them, then runs every check; a check whose
//! program is missing fails.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Debian packages of every check, each with a program that shows it is there.
const PACKAGES: &[(&str, &str)] = &[
    ("curl", "curl"),
    ("nghttp2-client", "h2load"),
    ("wrk", "wrk"),
    ("prometheus", "promtool"),
    ("slowhttptest", "slowhttptest"),
    ("testssl.sh", "testssl"),
    ("nodejs", "node"),
    ("npm", "npm"),
    ("valgrind", "valgrind"),
];

/// What only the check of the host agent needs.
const DOCKER_PACKAGES: &[(&str, &str)] =
    &[("docker.io", "dockerd"), ("iptables", "iptables"), ("util-linux", "setpriv")];

/// What checks of redirection need.
const NAMESPACE_PACKAGES: &[(&str, &str)] =
    &[("nftables", "nft"), ("iproute2", "ip"), ("util-linux", "nsenter")];

/// Run when it is named: it starts a Docker daemon and changes network namespaces, which not every machine allows.
const AGENT: &str = "agent";

/// Run when it is named: it makes network namespaces, for which it needs root.
const CAPTURE: &str = "capture";

/// Longest time for all scenarios, in seconds.
const SCENARIOS_MAX_S: &str = "480";

/// Where everything is.
struct Peers {
    root: PathBuf,
    target: PathBuf,
    venv: PathBuf,
    proxy: PathBuf,
    control: PathBuf,
    agent: PathBuf,
    cli: PathBuf,
    /// Test data and suites beside the repository.
    shared: PathBuf,
}

type Check = fn(&Peers) -> anyhow::Result<()>;

const CHECKS: &[(&str, Check)] = &[
    ("official-protos", official_protos),
    ("corpora", corpora),
    ("sources", |p| p.sources()),
    ("tools", |p| p.python("tools.py", &[])),
    ("envoy", |p| p.python("envoy.py", &[])),
    ("filters", |p| p.python("filters.py", &[])),
    ("services", |p| p.python("services.py", &[])),
    ("access", |p| p.python("access.py", &[])),
    ("balance", |p| p.python("balance.py", &[])),
    ("affinity", |p| p.python("affinity.py", &[])),
    ("routes", |p| p.python("routes.py", &[])),
    ("discovery", |p| p.python("discovery.py", &[])),
    ("logs", |p| p.python("logs.py", &[])),
    ("shaping", |p| p.python("shaping.py", &[])),
    ("config", |p| p.python("config.py", &[])),
    ("generated", |p| p.python("generated.py", &[])),
    ("observe", |p| p.python("observe.py", &[])),
    ("grpc-xds", |p| p.python("grpc_xds.py", &[])),
    ("h2spec", |p| p.python("h2spec.py", &[])),
    ("websocket", |p| p.python("websocket.py", &[])),
    ("trace-context", |p| p.python("trace_context.py", &[])),
    ("grpc-interop", |p| p.python("grpc_interop.py", &[])),
    ("suites", |p| p.python("suites.py", &[])),
    ("instructions", |p| p.python("instructions.py", &[])),
    (CAPTURE, |p| p.python("capture.py", &[])),
    (AGENT, |p| p.python("agent.py", &[])),
];

/// Runs the checks named, or all.
pub fn run(args: &[String]) -> anyhow::Result<()> {
    if let Some(unknown) = args.iter().find(|a| CHECKS.iter().all(|(name, _)| name != a)) {
        bail!("no check is called {unknown}");
    }
    let is_wanted = |name: &str| {
        let by_default = name != AGENT && name != CAPTURE;
        if args.is_empty() { by_default } else { args.iter().any(|a| a == name) }
    };
    let peers = Peers::prepare(is_wanted(AGENT), is_wanted(CAPTURE))?;
    let mut failed = Vec::new();
    for (name, check) in CHECKS.iter().filter(|(name, _)| is_wanted(name)) {
        println!("--- {name}");
        let began = Instant::now();
        match check(&peers) {
            Ok(()) => println!("--- {name}: passed ({:.0} s)", began.elapsed().as_secs_f64()),
            Err(error) => {
                println!("--- {name}: FAILED: {error:#}");
                failed.push(*name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// `cargo xtask scenarios [WORD…]`: ECS Anywhere hosts in network namespaces, with a Docker each. All of it lives in mount,
/// network and process namespaces of its own, so nothing of it runs on; its folder stays only when something failed.
pub fn scenarios(args: &[String]) -> anyhow::Result<()> {
    let peers = Peers::prepare(true, true)?;
    let folder = std::env::temp_dir().join(format!("outrigger-scenarios-{}", std::process::id()));
    std::fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut command = Command::new("timeout");
    // A shell for people takes the time it takes.
    let limit = if args.iter().any(|a| a == "--hand") { "0" } else { SCENARIOS_MAX_S };
    command.args(["--foreground", limit, "unshare"]);
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(peers.venv.join("bin/python")).arg(peers.root.join("xtask/scenarios/main.py")).args(args);
    command.env("TMPDIR", &folder);
    let result = run_command(peers.tell(&mut command)?);
    match &result {
        Ok(()) => std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?,
        Err(_) => eprintln!("logs are in {}", folder.display()),
    }
    result
}

impl Peers {
    fn prepare(with_docker: bool, with_capture: bool) -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("root")?.to_owned();
        let namespaces = NAMESPACE_PACKAGES.iter().filter(|_| with_docker || with_capture);
        let wanted = PACKAGES.iter().chain(namespaces).chain(DOCKER_PACKAGES.iter().filter(|_| with_docker));
        let missing: Vec<&str> =
            wanted.filter(|(_, program)| !on_path(program)).map(|(package, _)| *package).collect();
        if !missing.is_empty() {
            run_command(Command::new("apt-get").args(["update", "-qq"]))?;
            run_command(
                Command::new("apt-get")
                    .args(["install", "-y", "-qq", "--no-install-recommends"])
                    .args(&missing),
            )?;
        }
        let own = std::env::current_exe()?;
        let target = own.parent().and_then(Path::parent).context("target folder")?.to_owned();
        let venv = target.join("peers-venv");
        if !venv.join("bin/python").exists() {
            run_command(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        }
        let list = root.join("xtask/peers/requirements.txt");
        run_command(
            Command::new(venv.join("bin/pip"))
                .args(["install", "--quiet", "--disable-pip-version-check", "-r"])
                .arg(list),
        )?;
        let profile = std::env::var("PEERS_PROFILE").unwrap_or_else(|_| "release".into());
        crate::programs::build(&profile)?;
        let bin = target.join(if profile == "dev" { "debug" } else { &profile });
        Ok(Self {
            venv,
            proxy: bin.join("outrigger-proxy"),
            control: bin.join("outrigger-control"),
            agent: bin.join("outrigger-agent"),
            cli: bin.join("outrigger"),
            shared: root.join("../shared"),
            root,
            target,
        })
    }

    fn python(&self, script: &str, args: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(self.venv.join("bin/python"));
        command.arg(self.root.join("xtask/peers").join(script)).args(args);
        run_command(self.tell(&mut command)?)
    }

    /// Tells a script where everything is.
    fn tell<'a>(&self, command: &'a mut Command) -> anyhow::Result<&'a mut Command> {
        let path = std::env::var("PATH").unwrap_or_default();
        Ok(command
            .env("OUTRIGGER_PROXY", &self.proxy)
            .env("OUTRIGGER_CONTROL_BIN", &self.control)
            .env("OUTRIGGER_CLI", &self.cli)
            .env("OUTRIGGER_AGENT", &self.agent)
            // Holds the demo's application.
            .env("OUTRIGGER_XTASK", std::env::current_exe()?)
            .env("OUTRIGGER_SHARED", &self.shared)
            .env("PATH", format!("{}:{path}", self.venv.join("bin").display())))
    }

    /// Discovery sources and attestation against moto's server.
    fn sources(&self) -> anyhow::Result<()> {
        let moto = crate::moto::Moto::start(&self.venv)?;
        let mut command = Command::new(cargo());
        command.args(WORKSPACE_TEST).args(["moto", "--", "--ignored", "--nocapture"]);
        moto.tell(&mut command);
        run_command(&mut command)
    }
}

/// Tests of one name in whichever package has them. The whole workspace is named so that its libraries are those of
/// `cargo test --workspace`: a package alone has fewer features, and everything would be built once more.
const WORKSPACE_TEST: &[&str] = &["test", "--locked", "--quiet", "--workspace", "--test"];

/// Envoy's examples and Istio's samples: what of them is taken and what refused is as it was.
fn corpora(peers: &Peers) -> anyhow::Result<()> {
    let corpora = peers.shared.join("corpora");
    let mut command = Command::new(cargo());
    command.args(WORKSPACE_TEST).args(["corpora", "--", "--ignored"]).env("OUTRIGGER_CORPORA", corpora);
    run_command(&mut command)
}

/// Our `.proto` files against the official descriptors.
fn official_protos(peers: &Peers) -> anyhow::Result<()> {
    let ours = peers.venv.join("ours.bin");
    let example = ["build", "--locked", "--quiet", "--workspace", "--example", "descriptors"];
    run_command(Command::new(cargo()).args(example))?;
    let output = Command::new(peers.target.join("debug/examples/descriptors")).output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::write(&ours, output.stdout)?;
    let script = peers.root.join("control/api/tests/official/compare.py");
    run_command(Command::new(peers.venv.join("bin/python")).arg(script).arg(&ours))
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

fn on_path(program: &str) -> bool {
    std::env::var("PATH")
        .unwrap_or_default()
        .split(':')
        .any(|folder| Path::new(folder).join(program).exists())
}

fn run_command(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    anyhow::ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
