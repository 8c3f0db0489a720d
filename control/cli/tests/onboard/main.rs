//! `outrigger onboard host` and `offboard host` against a running control service. The host is a folder, and what would
//! be started there are programs that write down how they were called.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use outrigger_control::identity::{AuthoritySettings, ServerNames};
use outrigger_control::service::{Service, ServiceSettings};
use outrigger_control::source::register::RegistrySettings;
use serde_json::Value;

struct Mesh {
    dir: tempfile::TempDir,
    service: Service,
}

impl Mesh {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = ServiceSettings {
            data_dir: dir.path().join("control"),
            xds_address: any,
            api_address: any,
            api_tls: false,
            mesh_domain: "mesh".to_owned(),
            authority: AuthoritySettings::default(),
            registry: RegistrySettings::default(),
            sources: Default::default(),
            sts: None,
            observing: Default::default(),
            names: ServerNames { dns: vec!["localhost".to_owned()], ip: vec![any.ip()] },
        };
        let service = Service::start(settings).await.unwrap();
        Self { dir, service }
    }

    /// Runs `outrigger` beside the service, which is on this runtime.
    async fn outrigger(&self, arguments: &[&str]) -> Output {
        let token = std::fs::read_to_string(self.dir.path().join("control/admin.token")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
        command.args(arguments).args(["--server", &self.service.addresses.api, "--token", token.trim()]);
        command.env("XDG_CONFIG_HOME", self.dir.path());
        let done = tokio::task::spawn_blocking(move || command.output().unwrap());
        tokio::time::timeout(Duration::from_secs(60), done).await.unwrap().unwrap()
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let output = self.outrigger(&[arguments, &["--output", "json"]].concat()).await;
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    fn host(&self) -> PathBuf {
        self.dir.path().join("host")
    }

    async fn onboard(&self, more: &[&str]) -> Output {
        let root = self.host().display().to_string();
        let control = self.service.addresses.xds.to_string();
        let arguments = [
            &["onboard", "host", "--name", "rack7", "--local", "--root", &root, "--control", &control],
            &["--identity", "cart.shop=cart", "--identity", "pay.shop", "--address", "10.0.0.7"][..],
            more,
        ];
        self.outrigger(&arguments.concat()).await
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_is_onboarded_again_and_offboarded() {
    let mesh = Mesh::start().await;
    let rehearsed = mesh.onboard(&["--dry-run"]).await;
    assert!(rehearsed.status.success(), "{rehearsed:?}");
    assert!(text(&rehearsed.stdout).contains("would write /etc/outrigger/tokens/cart.shop.token (mode 0600"));
    assert!(!mesh.host().exists(), "a rehearsal changes nothing");
    assert_eq!(mesh.json(&["host", "list"]).await["items"], serde_json::json!([]));
    assert_eq!(mesh.json(&["token", "list"]).await["items"], serde_json::json!([]));

    let first = mesh.onboard(&[]).await;
    assert!(first.status.success(), "{first:?}");
    let root = mesh.host();
    let expected = [
        "etc/outrigger/agent.yaml",
        "etc/outrigger/offboard-rack7.sh",
        "etc/outrigger/tokens/cart.shop.token",
        "etc/outrigger/tokens/pay.shop.token",
        "etc/outrigger/trust-bundle.pem",
    ];
    assert_eq!(files(&root), expected);
    let token = root.join("etc/outrigger/tokens/cart.shop.token");
    assert_eq!((mode(&token), mode(token.parent().unwrap())), (0o600, 0o700));
    let was = std::fs::read_to_string(&token).unwrap();
    assert!(was.starts_with("ojt_"), "{was}");
    let roots = std::fs::read_to_string(&mesh.service.addresses.root_certificate).unwrap();
    assert_eq!(std::fs::read_to_string(root.join("etc/outrigger/trust-bundle.pem")).unwrap(), roots);

    // Again: what is as it should be is left alone, and the tokens that nobody used are withdrawn.
    let settings_at = root.join("etc/outrigger/agent.yaml").metadata().unwrap().modified().unwrap();
    let again = mesh.onboard(&[]).await;
    assert!(again.status.success(), "{again:?}");
    assert_eq!(files(&root), expected);
    assert_eq!(root.join("etc/outrigger/agent.yaml").metadata().unwrap().modified().unwrap(), settings_at);
    assert_ne!(std::fs::read_to_string(&token).unwrap(), was);
    let listed = mesh.json(&["token", "list"]).await;
    let of: Vec<_> = listed["items"].as_array().unwrap().iter().map(|token| &token["host"]).collect();
    assert_eq!(of, ["rack7", "rack7"], "{listed}");
    assert_eq!(mesh.json(&["host", "list"]).await["items"][0]["addresses"], serde_json::json!(["10.0.0.7"]));

    let path = root.display().to_string();
    let off = mesh.outrigger(&["offboard", "host", "--name", "rack7", "--local", "--root", &path]).await;
    assert!(off.status.success(), "{off:?}");
    assert!(text(&off.stdout).contains("withdrawn: 2 join token(s), 0 workload(s)"), "{off:?}");
    assert_eq!(files(&root), Vec::<String>::new());
    assert!(mesh.json(&["host", "list"]).await["items"][0]["revokedAt"].is_string());
    // Gone already is no error.
    let off = mesh.outrigger(&["offboard", "host", "--name", "rack7", "--local", "--root", &path]).await;
    assert!(off.status.success(), "{off:?}");
    let unknown = mesh.outrigger(&["offboard", "host", "--name", "rack8", "--revoke-only"]).await;
    assert_eq!(unknown.status.code(), Some(5), "{unknown:?}");
    mesh.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_before_anything_is_made() {
    let mesh = Mesh::start().await;
    for (more, said) in [
        (&["--identity", "pay.shop"][..], "given twice"),
        (&["--agent-binary", "/bin/true"], "--run systemd"),
        (&["--settings", "/nonexistent.yaml"], "/nonexistent.yaml"),
        (&["--agent-image", "$(reboot)"], "not the name of an image"),
    ] {
        let refused = mesh.onboard(more).await;
        assert!(!refused.status.success() && text(&refused.stderr).contains(said), "{more:?}: {refused:?}");
    }
    assert_eq!(mesh.json(&["host", "list"]).await["items"], serde_json::json!([]));
    mesh.service.stop().await;
}

/// A bundle's script, run where `id`, `systemctl` and the agent only write down that they were called.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bundle_checks_the_host_before_it_starts_anything() {
    let mesh = Mesh::start().await;
    let folder = mesh.dir.path().join("bundle");
    let control = mesh.service.addresses.xds.to_string();
    let made = mesh
        .outrigger(&[
            "onboard",
            "host",
            "--name",
            "rack7",
            "--bundle",
            &folder.display().to_string(),
            "--control",
            &control,
            "--identity",
            "cart.shop",
            "--run",
            "docker",
        ])
        .await;
    assert!(made.status.success(), "{made:?}");
    let script = folder.join("install.sh");
    assert_eq!(mode(&script), 0o700, "join tokens are in it");
    // Paths of this machine must not be written: the script is made to lie below the folder.
    let root = mesh.dir.path().join("machine");
    let read = std::fs::read_to_string(&script).unwrap();
    let moved = read
        .replace("/etc/outrigger", &format!("{}/etc/outrigger", root.display()))
        .replace("/var/lib/outrigger-agent", &format!("{}/state", root.display()));
    let programs = mesh.dir.path().join("bin");
    std::fs::create_dir_all(&programs).unwrap();
    let log = mesh.dir.path().join("calls");
    let program = |name: &str, body: &str| {
        let path = programs.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("id", "echo 0");
    let docker = |check: u8| {
        format!(
            "case \"$*\" in *' check '*) echo check; echo check >> {log}; exit {check};; *containers*) echo '{{\"items\":[{{\"state\":\"member\"}},{{\"state\":\"left alone\"}},{{\"state\":\"member\"}}]}}';; *) echo \"$1\" >> {log};; esac",
            log = log.display()
        )
    };
    let run = |script: &str| {
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).env("PATH", path).env_remove("ROOT");
        command.output().unwrap()
    };
    let calls =
        || std::fs::read_to_string(&log).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();

    program("docker", &docker(1));
    let failed = run(&moved);
    assert!(!failed.status.success(), "{failed:?}");
    assert_eq!(calls(), ["version", "check"], "nothing was started");
    std::fs::remove_file(&log).unwrap();

    program("docker", &docker(0));
    let done = run(&moved);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(calls(), ["version", "check", "rm", "run", "exec"]);
    assert!(text(&done.stdout).ends_with("outrigger: members 2\n"), "{done:?}");

    // A bundle whose tokens have expired, and a host whose clock is behind.
    for (from, to) in [("date +%s", "echo 99999999999"), ("date +%s", "echo 1000")] {
        let refused = run(&moved.replace(from, to));
        assert!(!refused.status.success() && text(&refused.stderr).contains("clock"), "{refused:?}");
    }
    mesh.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machine_is_onboarded_as_its_group_says_and_offboarded() {
    let mesh = Mesh::start().await;
    let group = mesh.dir.path().join("group.yaml");
    let text = "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: vms, namespace: shop}\nspec: {template: {serviceAccount: db, ports: {tcp-db: 5432}}}\n";
    std::fs::write(&group, text).unwrap();
    let root = mesh.host().display().to_string();
    let control = mesh.service.addresses.xds.to_string();
    let onboard = [
        "onboard",
        "vm",
        "--name",
        "db1",
        "--local",
        "--root",
        &root,
        "--control",
        &control,
        "--group",
        "vms.shop",
    ];
    let early = mesh.outrigger(&onboard).await;
    assert_eq!(early.status.code(), Some(5), "there is no such group: {early:?}");
    let applied = mesh.outrigger(&["apply", "-f", &group.display().to_string()]).await;
    assert!(applied.status.success(), "{applied:?}");
    let other = mesh.outrigger(&[&onboard[..], &["--service-account", "x"]].concat()).await;
    assert_eq!(other.status.code(), Some(2), "{other:?}");

    let done = mesh.outrigger(&onboard).await;
    assert!(done.status.success(), "{done:?}");
    let expected = [
        "etc/outrigger/offboard-db1.sh",
        "etc/outrigger/proxy-db1.env",
        "etc/outrigger/trust-bundle.pem",
        "etc/systemd/system/outrigger-proxy@.service",
    ];
    assert_eq!(files(&mesh.host()), expected);
    let env = mesh.host().join("etc/outrigger/proxy-db1.env");
    assert_eq!(mode(&env), 0o600);
    let env = std::fs::read_to_string(env).unwrap();
    for line in [
        "OUTRIGGER_SERVICE_ACCOUNT=db",
        "OUTRIGGER_WORKLOAD_GROUP=vms",
        "OUTRIGGER_NAMESPACE=shop",
        "OUTRIGGER_JOIN_TOKEN=ojt_",
    ] {
        assert!(env.contains(line), "{line}: {env}");
    }
    let off = mesh.outrigger(&["offboard", "vm", "--name", "db1", "--local", "--root", &root]).await;
    assert!(off.status.success(), "{off:?}");
    assert_eq!(files(&mesh.host()), Vec::<String>::new());
    assert!(text_of(&off).contains("withdrawn: 1 join token(s)"), "{off:?}");
    mesh.service.stop().await;
}

fn text_of(output: &Output) -> String {
    text(&output.stdout)
}
