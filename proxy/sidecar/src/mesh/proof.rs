//! Proofs of who we are, in place of a join token: the role of our ECS task, or the service account of our pod.
//!
//! Of the role's credentials only a signature leaves this process: over a request that asks STS who we are, tied to
//! the mesh (`x-outrigger-audience`) and to our certificate request (`x-outrigger-csr`). The control service sends it.
//!
//! The one request that is ever signed here is fixed, so the signature is made in a page instead of by a library as large
//! as the rest of this program; tests compare it with AWS's own.
//!
//! Source: AWS Signature Version 4; ECS developer guide, "Task IAM role" (container credentials endpoint).

use anyhow::{Context, bail, ensure};
use aws_lc_rs::{digest, hmac};
use outrigger_api::outrigger::v1::proof::Kind;
use outrigger_api::outrigger::v1::{AwsProof, KubernetesProof, Proof};
use serde::Deserialize;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What is signed; the control service builds the same.
const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// Where the ECS agent gives credentials of tasks.
const AGENT: &str = "169.254.170.2:80";

/// Longest wait for credentials, and the largest answer.
const TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// What proves who we are. Where the values come from is in the flags `--attest…`.
#[derive(Clone, Debug)]
pub enum Source {
    /// The role of the task.
    Aws {
        /// Region of the STS the control service asks.
        region: String,
        /// Its host, and port where it is not that of HTTPS.
        host: String,
        /// The mesh's trust domain.
        audience: String,
    },
    /// A projected token.
    Kubernetes {
        /// Name the control service knows the cluster by.
        cluster: String,
        /// Read for each proof: it is replaced while we run.
        token_file: PathBuf,
    },
}

impl Source {
    /// A proof for this certificate request.
    ///
    /// # Errors
    /// No credentials or no token.
    pub async fn prove(
        &self,
        namespace: &str,
        service_account: &str,
        csr_der: &[u8],
    ) -> anyhow::Result<Proof> {
        let kind = match self {
            Self::Aws { region, host, audience } => {
                let credentials = credentials().await.context("credentials of the task's role")?;
                let now = jiff::Timestamp::now();
                let csr = hex(digest::digest(&digest::SHA256, csr_der).as_ref());
                let request = Signed { region, host, audience, csr: &csr };
                Kind::Aws(request.proof(&credentials, now))
            }
            Self::Kubernetes { cluster, token_file } => {
                let read = tokio::fs::read_to_string(token_file).await;
                let token = read.with_context(|| format!("--attest-token-file {}", token_file.display()))?;
                Kind::Kubernetes(KubernetesProof { cluster: cluster.clone(), token: token.trim().to_owned() })
            }
        };
        Ok(Proof {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            kind: Some(kind),
        })
    }
}

/// Credentials of a role. They are secret: not `Debug`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    token: String,
}

/// What the signature is over.
struct Signed<'a> {
    region: &'a str,
    host: &'a str,
    audience: &'a str,
    csr: &'a str,
}

impl Signed<'_> {
    fn proof(&self, credentials: &Credentials, at: jiff::Timestamp) -> AwsProof {
        let date = at.strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = date.get(..8).unwrap_or_default();
        let mut headers = vec![("content-type", CONTENT_TYPE), ("host", self.host), ("x-amz-date", &date)];
        if !credentials.token.is_empty() {
            headers.push(("x-amz-security-token", &credentials.token));
        }
        headers.extend([("x-outrigger-audience", self.audience), ("x-outrigger-csr", self.csr)]);
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines = headers.iter().fold(String::new(), |mut lines, (name, value)| {
            let _ = writeln!(lines, "{name}:{value}");
            lines
        });
        let request = format!("POST\n/\n\n{lines}\n{names}\n{}", sha256(BODY));
        let scope = format!("{day}/{}/sts/aws4_request", self.region);
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(&request));
        let secret = format!("AWS4{}", credentials.secret_access_key);
        let key = [day, self.region, "sts", "aws4_request"]
            .iter()
            .fold(secret.into_bytes(), |key, part| mac(&key, part).as_ref().to_vec());
        let signature = hex(mac(&key, &text).as_ref());
        let id = &credentials.access_key_id;
        AwsProof {
            authorization: format!(
                "AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}"
            ),
            date,
            security_token: credentials.token.clone(),
        }
    }
}

fn sha256(text: &str) -> String {
    hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The credentials of the task's role, or those of the environment.
async fn credentials() -> anyhow::Result<Credentials> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (place, authorization) = match (
        variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
        variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    ) {
        (Some(path), _) => ((AGENT.to_owned(), path), None),
        (None, Some(url)) => {
            let file = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
            let token = match file {
                Some(path) => Some(tokio::fs::read_to_string(&path).await.context(path)?.trim().to_owned()),
                None => variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
            };
            (local(&url)?, token)
        }
        (None, None) => {
            let (Some(access_key_id), Some(secret_access_key)) =
                (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"))
            else {
                bail!(
                    "neither AWS_CONTAINER_CREDENTIALS_RELATIVE_URI (a task with a role has it) nor AWS_ACCESS_KEY_ID is set"
                );
            };
            let token = variable("AWS_SESSION_TOKEN").unwrap_or_default();
            return Ok(Credentials { access_key_id, secret_access_key, token });
        }
    };
    let answer = tokio::time::timeout(TIMEOUT, fetch(&place.0, &place.1, authorization.as_deref())).await;
    Ok(serde_json::from_slice(&answer.context("no answer in time")??)?)
}

/// Host with port, and path, of a URL that stays on this host (as AWS's own programs demand of one without TLS).
fn local(url: &str) -> anyhow::Result<(String, String)> {
    let rest = url.strip_prefix("http://").context("only http to this host is supported")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let host = authority.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
    let address: IpAddr = host.parse().context("the host must be an IP address")?;
    let agents = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"].map(|text| text.parse().ok());
    ensure!(address.is_loopback() || agents.contains(&Some(address)), "{address} is not on this host");
    Ok((authority, format!("/{path}")))
}

/// `GET`, by HTTP/1.0: the answer ends with the connection, and is never chunked.
async fn fetch(authority: &str, path: &str, authorization: Option<&str>) -> anyhow::Result<Vec<u8>> {
    let clean = |text: &str| text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    ensure!(clean(path) && authorization.is_none_or(clean), "a character that cannot be in a request");
    let mut stream = TcpStream::connect(authority).await.with_context(|| authority.to_owned())?;
    let header = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\nAccept: application/json\r\n{header}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no HTTP answer")?;
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).into_owned();
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    ensure!(status == "200", "{authority} answered {status}");
    Ok(answer.split_off(end + 4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use aws_sigv4::sign::v4;

    /// AWS's own signature of the same request.
    fn oracle(signed: &Signed<'_>, credentials: &Credentials, at: jiff::Timestamp) -> String {
        let token = Some(credentials.token.clone()).filter(|token| !token.is_empty());
        let identity = aws_credential_types::Credentials::new(
            &credentials.access_key_id,
            &credentials.secret_access_key,
            token,
            None,
            "test",
        )
        .into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(signed.region)
            .name("sts")
            .time(at.into())
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let headers = [
            ("host", signed.host),
            ("content-type", CONTENT_TYPE),
            ("x-outrigger-audience", signed.audience),
            ("x-outrigger-csr", signed.csr),
        ];
        let url = format!("https://{}/", signed.host);
        let body = SignableBody::Bytes(BODY.as_bytes());
        let request = SignableRequest::new("POST", url, headers.into_iter(), body).unwrap();
        let (instructions, _) = sign(request, &params).unwrap().into_parts();
        let (headers, _) = instructions.into_parts();
        headers.iter().find(|h| h.name() == "authorization").unwrap().value().to_owned()
    }

    #[test]
    fn signature_is_the_one_awss_own_library_makes() {
        for (token, host, seconds) in [
            ("", "sts.eu-central-1.amazonaws.com", 1_700_000_000),
            ("a/b+c==", "127.0.0.1:5000", 1_799_999_999),
        ] {
            let signed = Signed { region: "eu-central-1", host, audience: "cluster.local", csr: "00ff" };
            let credentials = Credentials {
                access_key_id: "AKIDEXAMPLE".into(),
                secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
                token: token.into(),
            };
            let at = jiff::Timestamp::from_second(seconds).unwrap();
            assert_eq!(signed.proof(&credentials, at).authorization, oracle(&signed, &credentials, at));
        }
    }

    #[test]
    fn credentials_are_fetched_from_this_host_only() {
        assert_eq!(
            local("http://169.254.170.23/v1/x").unwrap(),
            ("169.254.170.23:80".into(), "/v1/x".into())
        );
        assert_eq!(local("http://[::1]:81/").unwrap(), ("[::1]:81".into(), "/".into()));
        for bad in [
            "http://169.254.169.254/x",
            "http://10.0.0.1/x",
            "https://127.0.0.1/x",
            "http://example.com/",
            "x",
        ] {
            assert!(local(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn answer_is_taken_when_it_is_one_and_refused_otherwise() {
        for (answer, good) in [
            (
                "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"AccessKeyId\": \"a\", \"SecretAccessKey\": \"s\", \"Token\": \"t\", \"RoleArn\": \"x\"}",
                true,
            ),
            ("HTTP/1.1 404 Not Found\r\n\r\n{}", false),
            ("garbage", false),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let place = listener.local_addr().unwrap().to_string();
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = vec![0; 1_024];
                let read = stream.read(&mut head).await.unwrap();
                assert!(String::from_utf8_lossy(&head[..read]).contains("\r\nAuthorization: secret\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            };
            let (fetched, ()) = tokio::join!(fetch(&place, "/creds", Some("secret")), serve);
            let read = fetched.and_then(|body| Ok(serde_json::from_slice::<Credentials>(&body)?));
            assert_eq!(read.is_ok(), good, "{answer}");
        }
        assert!(fetch("127.0.0.1:1", "/a\r\nb", None).await.is_err());
    }

    #[tokio::test]
    async fn token_of_a_pod_is_read_for_each_proof() {
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        let source = Source::Kubernetes { cluster: "k8s".into(), token_file: token_file.clone() };
        assert!(source.prove("shop", "cart", b"csr").await.is_err());
        for text in ["one\n", "two\n"] {
            std::fs::write(&token_file, text).unwrap();
            let proof = source.prove("shop", "cart", b"csr").await.unwrap();
            let Some(Kind::Kubernetes(kind)) = proof.kind else { panic!() };
            assert_eq!((kind.token.as_str(), kind.cluster.as_str()), (text.trim(), "k8s"));
        }
    }
}
