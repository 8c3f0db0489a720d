//! A machine with one application and its proxy: no docker, no agent. What it is comes from a WorkloadGroup.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::Value;

use super::bundle::{self, ETC, File};
use super::script;
use crate::failure::Failure;

/// The proxy's program.
pub const BINARY: &str = "/usr/bin/outrigger-proxy";

/// Its unit; one for each application of a machine.
pub const UNIT: &str = "/etc/systemd/system/outrigger-proxy@.service";

const UNIT_TEXT: &str = include_str!("../../../../docker/outrigger-proxy@.service");

/// What a machine is to be, as flags and the group say it.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Its name at the control service; also the instance's.
    pub name: String,
    /// How it reaches the control service.
    pub control: Vec<String>,
    /// The group and its namespace.
    pub group: (String, String),
    /// Who it is.
    pub service_account: String,
    /// The service it is an instance of.
    pub service: String,
    /// Where others reach it.
    pub address: Option<IpAddr>,
    /// `region/zone/sub_zone`.
    pub locality: Option<String>,
    /// The proxy's program, to be put onto the machine.
    pub binary: Option<PathBuf>,
}

/// Reads `GROUP.NAMESPACE`.
///
/// # Errors
/// It is not that.
pub fn group(text: &str) -> Result<(String, String), String> {
    // Names of resources may have dots, namespaces not.
    match text.rsplit_once('.') {
        Some((name, namespace)) if !name.is_empty() && super::host::host_name(namespace).is_ok() => {
            Ok((name.to_owned(), namespace.to_owned()))
        }
        _ => Err("GROUP.NAMESPACE is needed".to_owned()),
    }
}

/// The service account that a WorkloadGroup is for.
pub fn account_of(resource: &Value) -> Option<String> {
    let account = resource["spec"]["template"]["serviceAccount"].as_str()?;
    (!account.is_empty()).then(|| account.to_owned())
}

impl Vm {
    /// The proxy's environment.
    fn environment(&self, token: &str) -> String {
        let mut all = vec![
            ("CONTROL", self.control.join(",")),
            ("TRUST_BUNDLE", format!("{ETC}/trust-bundle.pem")),
            ("JOIN_TOKEN", token.to_owned()),
            ("NAMESPACE", self.group.1.clone()),
            ("SERVICE_ACCOUNT", self.service_account.clone()),
            ("SERVICE", self.service.clone()),
            ("WORKLOAD_GROUP", self.group.0.clone()),
            ("INSTANCE_ID", self.name.clone()),
        ];
        all.extend(self.address.map(|address| ("ADDRESS", address.to_string())));
        all.extend(self.locality.clone().map(|locality| ("LOCALITY", locality)));
        all.into_iter().fold(String::new(), |mut out, (name, value)| {
            let _ = writeln!(out, "OUTRIGGER_{name}={value}");
            out
        })
    }

    fn environment_file(&self) -> String {
        format!("{ETC}/proxy-{}.env", self.name)
    }

    /// What is put onto the machine.
    ///
    /// # Errors
    /// The program cannot be read.
    pub fn files(&self, roots_pem: &str, token: &str) -> Result<Vec<File>, Failure> {
        let mut files = vec![
            File::new(format!("{ETC}/trust-bundle.pem"), 0o644, roots_pem.as_bytes()),
            File {
                secret: true,
                ..File::new(self.environment_file(), 0o600, self.environment(token).as_bytes())
            },
            File::new(UNIT.to_owned(), 0o644, UNIT_TEXT.as_bytes()),
            File::new(script::offboard_file(&self.name), 0o700, self.offboard().as_bytes()),
        ];
        if let Some(path) = &self.binary {
            files.push(bundle::program(path, BINARY)?);
        }
        Ok(files)
    }

    /// What is run there once the files are in place.
    pub fn start(&self) -> String {
        let unit = format!("outrigger-proxy@{}", self.name);
        format!(
            r#"systemctl daemon-reload
systemctl enable {unit}
systemctl restart {unit}
say "proxy started"
left=60
until {BINARY} health >/dev/null 2>&1; do
  left=$((left - 1))
  [ "$left" -gt 0 ] || fail "the proxy is not ready after 60 s: see journalctl -u {unit}"
  sleep 1
done
printf '{}1\n'
"#,
            script::MEMBERS
        )
    }

    /// The script that brings it in.
    pub fn install(&self, files: &[File], good: (i64, i64)) -> String {
        let mut out = script::head(&self.name, "Brings this machine into the mesh");
        out.push_str(&script::clock(good));
        out.push_str(script::NEED_SYSTEMD);
        if self.binary.is_none() {
            let _ = writeln!(
                out,
                "[ -n \"$ROOT\" ] || [ -x {BINARY} ] || fail \"{BINARY} is not there: give --proxy-binary\""
            );
        }
        out.push_str(&script::place(files));
        // A proxy that holds a certificate does not look at its token: what an earlier onboarding gave must go.
        let _ = writeln!(
            out,
            "rm -f /var/lib/private/outrigger-proxy/{name}/identity.json /var/lib/outrigger-proxy/{name}/identity.json",
            name = self.name
        );
        out.push_str(&self.start());
        out
    }

    /// The script that takes it out: the proxy deregisters when it ends.
    pub fn offboard(&self) -> String {
        let mut out = script::head(&self.name, "Takes this machine out of the mesh; its application runs on");
        let name = &self.name;
        let _ = write!(
            out,
            r#"if [ -z "$ROOT" ]; then
  systemctl disable --now outrigger-proxy@{name} >/dev/null 2>&1 || true
  say "proxy stopped"
  rm -rf /var/lib/private/outrigger-proxy/{name} /var/lib/outrigger-proxy/{name}
fi
rm -f "$ROOT{}"
# Other applications of this machine may have proxies of their own.
ls "$ROOT{ETC}"/proxy-*.env >/dev/null 2>&1 || rm -f "$ROOT{UNIT}" "$ROOT{ETC}/trust-bundle.pem"
[ -n "$ROOT" ] || systemctl daemon-reload
rm -f "$ROOT{}"; rmdir "$ROOT{ETC}" 2>/dev/null || true; say "machine left the mesh"; exit 0
"#,
            self.environment_file(),
            script::offboard_file(name)
        );
        out
    }
}
