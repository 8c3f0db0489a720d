//! `outrigger transform`

use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Serialize as _;
use serde_json::Value;

use crate::failure::Failure;
use crate::transform::{Options, Port, Refusal, capabilities, registrable, transform, unified};

/// Longest definition, in bytes. ECS takes 64 KiB; what it gives back is a little longer.
const INPUT_BYTES_MAX: u64 = 1 << 20;

/// Transformations of other programs' files. No server is needed.
#[derive(clap::Subcommand)]
pub enum Transform {
    /// Add the proxy to an ECS task definition, or bring the one that is there up to date.
    ///
    /// What a flag does not say is as an earlier run left it, else as the container's labels `outrigger.io/…` say. What is
    /// to be known is told on standard error. docs/onboarding.md says what the proxy can do in which network mode.
    Taskdef(Box<Taskdef>),
}

impl Transform {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Taskdef(verb) => verb.run(),
        }
    }
}

/// Flags of `transform taskdef`.
#[derive(clap::Args)]
pub struct Taskdef {
    /// JSON as RegisterTaskDefinition takes it or as DescribeTaskDefinition gives it, or - for standard input.
    file: PathBuf,
    /// Write to this file instead of standard output.
    #[arg(long, conflicts_with_all = ["diff", "in_place"])]
    out: Option<PathBuf>,
    /// Only show what would change, as a unified diff. Exit code 0: nothing; 1: something; others: as ever.
    #[arg(long, conflicts_with = "in_place")]
    diff: bool,
    /// Write to the file itself.
    #[arg(long)]
    in_place: bool,
    /// Only say what the proxy can and cannot do in this network mode.
    #[arg(long, conflicts_with_all = ["diff", "in_place", "out"])]
    network_mode_check: bool,
    /// Leave out what RegisterTaskDefinition does not take of what DescribeTaskDefinition gives.
    #[arg(long)]
    registrable: bool,
    /// Only label the application for the host agent, which brings the proxy itself (bridge and host mode).
    #[arg(long)]
    agent: bool,
    /// The application's container.
    #[arg(long, value_name = "CONTAINER")]
    app: Option<String>,
    /// The proxy's image.
    #[arg(long)]
    image: Option<String>,
    /// Control service, `HOST[:PORT]`; several, separated by commas, are tried in order.
    #[arg(long)]
    control: Option<String>,
    /// Service, as NAME or NAME.NAMESPACE.
    #[arg(long)]
    service: Option<String>,
    /// Port of the application, `NAME=[NUMBER:]CONTAINER_PORT/PROTOCOL`, where NUMBER is what callers name and PROTOCOL is http,
    /// http2, grpc, tcp or tls. May be repeated.
    #[arg(long = "port", value_name = "NAME=PORT/PROTOCOL")]
    ports: Vec<Port>,
    /// Secret (ARN) with the join token.
    #[arg(long, value_name = "ARN", conflicts_with = "attest_region")]
    join_token_secret: Option<String>,
    /// Prove who the task is by its role, with the STS of this region.
    #[arg(long, value_name = "REGION")]
    attest_region: Option<String>,
    /// Trust domain of the mesh, where it is not cluster.local.
    #[arg(long, requires = "attest_region")]
    trust_domain: Option<String>,
    /// Trust roots of the mesh, as a path in the proxy's container. Default: /etc/outrigger/trust-bundle.pem.
    #[arg(long, value_name = "PATH")]
    trust_bundle: Option<String>,
    /// Memory limit of the proxy in MiB. Default: 128.
    #[arg(long)]
    memory: Option<u64>,
    /// CPU units of the proxy. Default: 64.
    #[arg(long)]
    cpu: Option<u64>,
    /// Bridge mode: address of the host on which the task will run.
    #[arg(long)]
    address: Option<IpAddr>,
    /// Bridge mode: CONTAINER_PORT=HOST_PORT, where the application goes. Default: 10000 above its old host port. May be repeated.
    #[arg(long = "app-host-port", value_name = "PORT=PORT", value_parser = port_pair)]
    app_host_ports: Vec<(u16, u16)>,
    /// Bridge mode: the host's address on docker's bridge. Default: 172.17.0.1.
    #[arg(long, value_name = "ADDRESS")]
    bridge_gateway: Option<IpAddr>,
    /// Host and awsvpc mode: first port at which the mesh reaches the proxy. Default: 15006.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    inbound_port: Option<u16>,
    /// Port at which the application reaches the mesh. Default: 15001.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    outbound_port: Option<u16>,
    /// Port of the proxy's admin interface, on 127.0.0.1. Default: 15000.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    admin_port: Option<u16>,
}

fn port_pair(text: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    text.split_once('=')
        .and_then(|(container, host)| Some((port(container)?, port(host)?)))
        .ok_or_else(|| format!("`{text}` is not CONTAINER_PORT=HOST_PORT"))
}

impl Taskdef {
    fn run(self) -> Result<(), Failure> {
        let piped = self.file == Path::new("-");
        if self.in_place && piped {
            return Err(Failure::Usage("--in-place needs a file".to_owned()));
        }
        let text = read(&self.file)?;
        let before: Value = serde_json::from_str(&text)
            .map_err(|error| Failure::Usage(format!("{}: {error}", self.file.display())))?;
        let options = self.options();
        let refused =
            |refusals: Vec<Refusal>| Failure::Refused(refusals.iter().map(Refusal::to_string).collect());
        if self.network_mode_check {
            let told = capabilities(&before, &options).map_err(refused)?;
            told.iter().for_each(|line| println!("{line}"));
            return Ok(());
        }
        let mut after = before.clone();
        let changes = transform(&mut after, &options).map_err(refused)?;
        if self.registrable {
            after = registrable(after);
        }
        for note in &changes.notes {
            eprintln!("note: {note}");
        }
        let unchanged = before == after;
        let indent = indent(&text);
        if self.diff {
            if unchanged {
                return Ok(());
            }
            let name = if piped { "taskdef.json".into() } else { self.file.display().to_string() };
            print!("{}", unified::lines(&name, &pretty(&before, &indent)?, &pretty(&after, &indent)?));
            let reason = format!("{name} would change at: {}", changes.paths.join(", "));
            return Err(Failure::Differs(reason));
        }
        // What needs no change is given back to the letter.
        let written = if unchanged { text } else { pretty(&after, &indent)? };
        match (&self.out, self.in_place) {
            (Some(out), _) => replace(out, &written),
            (None, true) if unchanged => Ok(()),
            (None, true) => replace(&self.file, &written),
            (None, false) => {
                std::io::stdout().write_all(written.as_bytes()).map_err(|e| Failure::Other(e.to_string()))
            }
        }
    }

    fn options(&self) -> Options {
        Options {
            app: self.app.clone(),
            image: self.image.clone(),
            control: self.control.clone(),
            service: self.service.clone(),
            ports: self.ports.clone(),
            address: self.address,
            join_token_secret: self.join_token_secret.clone(),
            attest_region: self.attest_region.clone(),
            trust_domain: self.trust_domain.clone(),
            trust_bundle: self.trust_bundle.clone(),
            memory: self.memory,
            cpu: self.cpu,
            inbound_port: self.inbound_port,
            outbound_port: self.outbound_port,
            admin_port: self.admin_port,
            app_host_ports: self.app_host_ports.clone(),
            bridge_gateway: self.bridge_gateway,
            agent: self.agent,
        }
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let limit = INPUT_BYTES_MAX + 1;
    let outcome = if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text))
    };
    // Not 1, which is what --diff says of a difference.
    outcome.map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    if text.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::Usage(format!("{}: longer than {INPUT_BYTES_MAX} bytes", path.display())));
    }
    Ok(text)
}

/// The blanks a JSON text indents its fields by.
fn indent(text: &str) -> String {
    let blanks = |line: &str| -> String { line.chars().take_while(|c| *c == ' ' || *c == '\t').collect() };
    text.lines().skip(1).map(blanks).find(|blanks| !blanks.is_empty()).unwrap_or_else(|| "  ".to_owned())
}

fn pretty(value: &Value, indent: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    value.serialize(&mut serializer).map_err(|error| Failure::Other(error.to_string()))?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(|error| Failure::Other(error.to_string()))
}

/// Writes a file beside it and renames it: nobody sees half of it, and a full disk loses nothing.
fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    // Through a link to the file itself.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = std::fs::write(&beside, text).and_then(|()| {
        if let Ok(known) = std::fs::metadata(&path) {
            std::fs::set_permissions(&beside, known.permissions())?;
        }
        std::fs::rename(&beside, &path)
    });
    written.map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        Failure::file(&path, &error)
    })
}
