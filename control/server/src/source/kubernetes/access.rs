//! How a cluster is reached, and who we are there: kubeconfig files, and the service account of a pod.
//!
//! Source: Kubernetes, `clientcmd/api/v1.Config` and `client.authentication.k8s.io/v1.ExecCredential`. What is not
//! supported is refused by name: a setting that is passed over could mean that the wrong cluster is believed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::Instant;

use super::super::settings::KubernetesSettings;
use crate::outward::{self, CallError, Origin};

/// Where a pod finds its service account.
const POD_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Time a credential program may take, and the most it may say.
const EXEC_TIMEOUT: Duration = Duration::from_secs(30);
const EXEC_BYTES_MAX: usize = 1 << 20;

/// How long a token of a credential program without an end is kept.
const EXEC_KEPT_FOR: Duration = Duration::from_secs(60);

/// Why a cluster cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kubeconfig.
    #[error("kubeconfig: {0}")]
    Kubeconfig(String),
    /// The credential program.
    #[error("credential program: {0}")]
    Exec(String),
    /// TLS, or the server's URL.
    #[error(transparent)]
    Call(#[from] CallError),
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize, Debug)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize, Debug)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize, Debug)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    proxy_url: Option<String>,
    tls_server_name: Option<String>,
}

#[derive(Deserialize, Debug)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    exec: Option<Exec>,
    auth_provider: Option<serde_json::Value>,
    username: Option<String>,
    #[serde(rename = "as")]
    impersonate: Option<String>,
}

#[derive(Deserialize, Clone, Debug)]
#[serde(rename_all = "camelCase")]
struct Exec {
    api_version: String,
    command: String,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<EnvironmentVariable>>,
}

#[derive(Deserialize, Clone, Debug)]
struct EnvironmentVariable {
    name: String,
    value: String,
}

/// A bearer token: where it comes from.
#[derive(Debug)]
enum Bearer {
    Nobody,
    Fixed(String),
    /// Read again for each call: it is replaced while we run.
    File(PathBuf),
    Exec {
        exec: Exec,
        folder: PathBuf,
        held: tokio::sync::Mutex<Option<(String, Instant)>>,
    },
}

/// A cluster that can be called.
pub struct Access {
    /// Where.
    pub origin: Origin,
    /// Before every path.
    pub prefix: String,
    bearer: Bearer,
}

impl Access {
    /// By the settings of a source. Files are read, nothing is called.
    ///
    /// *Errors*: [`AccessError`].
    pub fn of(settings: &KubernetesSettings) -> Result<Self, AccessError> {
        match &settings.kubeconfig {
            Some(path) => Self::of_kubeconfig(path, settings.context.as_deref()),
            None => Self::of_pod(Path::new(POD_FOLDER)),
        }
    }

    /// As the pod we run in.
    fn of_pod(folder: &Path) -> Result<Self, AccessError> {
        let variable = |name: &str| {
            std::env::var(name).map_err(|_| {
                AccessError::Kubeconfig(format!(
                    "none is given, and this is no pod of a cluster ({name} is not set)"
                ))
            })
        };
        let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let pem = read(&folder.join("ca.crt"))?;
        let (origin, prefix) =
            Origin::parse(&format!("https://{host}:{port}"), || outward::tls_trusting(&pem, None))?;
        Ok(Self { origin, prefix, bearer: Bearer::File(folder.join("token")) })
    }

    /// By a kubeconfig.
    fn of_kubeconfig(path: &Path, context: Option<&str>) -> Result<Self, AccessError> {
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        let folder = path.parent().unwrap_or(Path::new("."));
        let bad = |reason: String| AccessError::Kubeconfig(reason);
        let config: Kubeconfig = serde_saphyr::from_str(&text).map_err(|error| bad(error.to_string()))?;
        let name = context.unwrap_or(&config.current_context);
        let context = config.contexts.into_iter().find(|c| c.name == name);
        let Context { cluster, user } =
            context.ok_or_else(|| bad(format!("no context is called {name:?}")))?.context;
        let found = config.clusters.into_iter().find(|c| c.name == cluster);
        let cluster = found.ok_or_else(|| bad(format!("no cluster is called {cluster:?}")))?.cluster;
        let found = config.users.into_iter().find(|u| u.name == user);
        let user = match found {
            Some(found) => found.user,
            None if user.is_empty() => User::default(),
            None => return Err(bad(format!("no user is called {user:?}"))),
        };
        refuse(&cluster, &user).map_err(bad)?;
        let tls = || tls(folder, &cluster, &user).map_err(|error| CallError::Tls(error.to_string()));
        let (origin, prefix) = Origin::parse(&cluster.server, tls)?;
        let bearer = match (user.exec, user.token_file, user.token) {
            (Some(exec), ..) => {
                Bearer::Exec { exec, folder: folder.to_owned(), held: tokio::sync::Mutex::new(None) }
            }
            (None, Some(file), _) => Bearer::File(folder.join(file)),
            (None, None, Some(token)) => Bearer::Fixed(token),
            (None, None, None) => Bearer::Nobody,
        };
        if !matches!(bearer, Bearer::Nobody) && !origin.has_tls() && !is_loopback(&origin) {
            return Err(bad("a token is not sent over http".into()));
        }
        Ok(Self { origin, prefix, bearer })
    }

    /// The value of `authorization`; `None`: none is sent.
    ///
    /// *Errors*: the token's file or program.
    pub async fn authorization(&self) -> Result<Option<String>, AccessError> {
        let token = match &self.bearer {
            Bearer::Nobody => return Ok(None),
            Bearer::Fixed(token) => token.clone(),
            Bearer::File(path) => {
                let read = tokio::fs::read_to_string(path).await;
                read.map_err(|source| AccessError::File { path: path.clone(), source })?
            }
            Bearer::Exec { exec, folder, held } => {
                let mut held = held.lock().await;
                match &*held {
                    Some((token, until)) if *until > Instant::now() => token.clone(),
                    _ => {
                        let (token, good_for) = run(exec, folder).await?;
                        let until = Instant::now().checked_add(good_for).unwrap_or_else(Instant::now);
                        *held = Some((token.clone(), until));
                        token
                    }
                }
            }
        };
        Ok(Some(format!("Bearer {}", token.trim())))
    }

    /// The cluster refused who we are: a token that is kept is asked for anew.
    pub async fn forget(&self) {
        if let Bearer::Exec { held, .. } = &self.bearer {
            *held.lock().await = None;
        }
    }
}

fn is_loopback(origin: &Origin) -> bool {
    let authority = origin.authority();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn refuse(cluster: &Cluster, user: &User) -> Result<(), String> {
    let given = [
        (cluster.insecure_skip_tls_verify, "insecure-skip-tls-verify"),
        (cluster.proxy_url.is_some(), "proxy-url"),
        (cluster.tls_server_name.is_some(), "tls-server-name"),
        (user.auth_provider.is_some(), "auth-provider"),
        (user.username.is_some(), "username"),
        (user.impersonate.is_some(), "as"),
    ];
    match given.iter().find(|(given, _)| *given) {
        Some((_, field)) => Err(format!("{field} is not supported")),
        None => Ok(()),
    }
}

fn tls(folder: &Path, cluster: &Cluster, user: &User) -> Result<Arc<ClientConfig>, AccessError> {
    let file_or_data = |file: &Option<PathBuf>, data: &Option<String>| match (data, file) {
        (Some(data), _) => {
            let decoded = STANDARD.decode(data.trim());
            decoded.map(Some).map_err(|error| AccessError::Kubeconfig(format!("base64: {error}")))
        }
        (None, Some(file)) => read(&folder.join(file)).map(Some),
        (None, None) => Ok(None),
    };
    let roots = file_or_data(&cluster.certificate_authority, &cluster.certificate_authority_data)?;
    let chain = file_or_data(&user.client_certificate, &user.client_certificate_data)?;
    let key = file_or_data(&user.client_key, &user.client_key_data)?;
    let own = match (&chain, &key) {
        (Some(chain), Some(key)) => Some((chain.as_slice(), key.as_slice())),
        (None, None) => None,
        _ => {
            return Err(AccessError::Kubeconfig(
                "a client certificate needs its key, and a key its certificate".into(),
            ));
        }
    };
    Ok(match roots {
        Some(roots) => outward::tls_trusting(&roots, own)?,
        None => {
            let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            outward::tls_with(roots, own)?
        }
    })
}

fn read(path: &Path) -> Result<Vec<u8>, AccessError> {
    std::fs::read(path).map_err(|source| AccessError::File { path: path.to_owned(), source })
}

/// Runs a credential program; its token and how long it is good for.
async fn run(exec: &Exec, folder: &Path) -> Result<(String, Duration), AccessError> {
    #[derive(Deserialize)]
    struct Credential {
        status: Option<CredentialStatus>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct CredentialStatus {
        token: Option<String>,
        expiration_timestamp: Option<String>,
    }
    let failed = |reason: String| AccessError::Exec(format!("{}: {reason}", exec.command));
    let asked = serde_json::json!({
        "apiVersion": exec.api_version, "kind": "ExecCredential", "spec": {"interactive": false},
    });
    let mut command = Command::new(&exec.command);
    command.args(exec.args.iter().flatten()).current_dir(folder).kill_on_drop(true);
    command.envs(exec.env.iter().flatten().map(|variable| (&variable.name, &variable.value)));
    command.env("KUBERNETES_EXEC_INFO", asked.to_string()).stdin(std::process::Stdio::null());
    let output = tokio::time::timeout(EXEC_TIMEOUT, command.output()).await;
    let output =
        output.map_err(|_| failed("took too long".into()))?.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() || output.stdout.len() > EXEC_BYTES_MAX {
        return Err(failed(format!("{}, {} bytes", output.status, output.stdout.len())));
    }
    let credential: Credential =
        serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
    let status = credential.status.ok_or_else(|| failed("no status in its answer".into()))?;
    let token = status.token.ok_or_else(|| failed("no token in its answer".into()))?;
    let good_for = match status.expiration_timestamp {
        None => EXEC_KEPT_FOR,
        Some(text) => {
            let end: jiff::Timestamp = text.parse().map_err(|_| failed(format!("bad time {text:?}")))?;
            let left = end.as_millisecond().saturating_sub(crate::clock::unix_ms());
            // Not to its very end: the call still has to get there.
            Duration::from_millis(u64::try_from(left).unwrap_or(0)).saturating_sub(Duration::from_secs(30))
        }
    };
    Ok((token, good_for))
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
