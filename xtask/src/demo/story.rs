//! `cargo demo -- --check`: everything the mesh promises, tried under load, each promise a chapter that can fail.

use super::load::{Load, Seen};
use super::mesh::{Mesh, NAMESPACE, http_get, http_status, wait_until};
use super::resources;
use anyhow::{Context, bail, ensure};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Runs all chapters in order; the first broken promise ends it.
pub fn tell(mesh: &mut Mesh, load: &Load) -> anyhow::Result<()> {
    let began = Instant::now();
    let (mut flowed, mut last) = (0, Seen::default());
    let flowing = wait_until("traffic flows", Duration::from_secs(20), || {
        last = load.take();
        flowed += last.ok;
        Ok(flowed >= 50)
    });
    flowing.with_context(|| format!("{flowed} requests; last failures: {:?}", last.failures))?;
    type Chapter = fn(&mut Mesh, &Load) -> anyhow::Result<String>;
    let chapters: [(&str, Chapter); 9] = [
        ("traffic flows without a failure", flows),
        ("hops are mutually authenticated; plaintext and strangers are refused", authenticated),
        ("a canary shift under load is live within 1 s and loses nothing", canary),
        ("a VirtualService with a bad field is refused and changes nothing", refused),
        ("an AuthorizationPolicy denies A → B, and lifting it restores", authorization),
        ("the control service is killed: nothing is lost, a sidecar restarts from disk", outage),
        ("certificates rotate under load without a failure", rotation),
        ("SIGTERM of one B instance under load loses nothing", termination),
        ("the signing CA rotates under load without a failure", ca_rotation),
    ];
    for (title, chapter) in chapters {
        let start = Instant::now();
        let told = chapter(mesh, load).with_context(|| title.to_owned())?;
        mesh.check_alive()?;
        println!("ok  {title} ({told}; {:.1} s)", start.elapsed().as_secs_f64());
    }
    println!("all promises held in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Fails when anything failed.
fn none_failed(seen: &Seen) -> anyhow::Result<()> {
    ensure!(
        seen.failed == 0,
        "{} of {} requests failed: {:?}",
        seen.failed,
        seen.ok + seen.failed,
        seen.failures
    );
    ensure!(seen.ok > 0, "no request was made");
    Ok(())
}

fn flows(_: &mut Mesh, load: &Load) -> anyhow::Result<String> {
    load.take();
    sleep(Duration::from_secs(2));
    let seen = load.take();
    none_failed(&seen)?;
    ensure!(
        seen.share("v1") == 1.0,
        "all traffic goes to v1 at first, but its share is {}",
        seen.share("v1")
    );
    Ok(format!("{} requests", seen.ok))
}

fn authenticated(mesh: &mut Mesh, _: &Load) -> anyhow::Result<String> {
    let b = mesh.member("b-v1")?;
    let (inbound, admin) = (b.inbound, b.admin);
    let stats = http_get(admin, "/stats/prometheus")?;
    let principal = format!("source_principal=\"spiffe://cluster.local/ns/{NAMESPACE}/sa/a\"");
    let seen = stats.lines().any(|l| {
        l.starts_with("istio_requests_total")
            && l.contains("connection_security_policy=\"mutual_tls\"")
            && l.contains(&principal)
    });
    ensure!(seen, "B's metrics do not show mutual TLS from A's identity");
    let own = identity(mesh, "a")?;
    ensure!(get(inbound, Some(&own))? == 200, "A's identity is not served by B");
    if let Ok(status) = plaintext_get(inbound) {
        bail!("plaintext was answered with {status}");
    }
    let nobody = Identity { certificate: None, ..own.clone() };
    ensure!(get(inbound, Some(&nobody)).is_err(), "a client without a certificate was served");
    let stranger = Identity { certificate: Some(stranger()?), ..own };
    ensure!(get(inbound, Some(&stranger)).is_err(), "a client of another CA was served");
    Ok("plaintext, no certificate and a foreign CA were refused".into())
}

fn canary(mesh: &mut Mesh, load: &Load) -> anyhow::Result<String> {
    load.take();
    let mut total = 0;
    let mut waits = Vec::new();
    for (v1, v2) in [(50, 50), (0, 100)] {
        mesh.apply(&resources::split(v1, v2, ""))?;
        let applied = Instant::now();
        let before = load.take();
        none_failed(&before)?;
        // Live: of the requests of a short window, the share is what was asked for.
        loop {
            sleep(Duration::from_millis(200));
            let seen = load.take();
            none_failed(&seen)?;
            total += seen.ok;
            let share = seen.share("v2");
            if (share - f64::from(v2) / 100.0).abs() < if v2 == 50 { 0.3 } else { 0.001 } {
                break;
            }
            ensure!(
                applied.elapsed() < Duration::from_secs(1),
                "{v1}/{v2} is not live after 1 s: v2 has {share}"
            );
        }
        waits.push(applied.elapsed().as_millis());
        sleep(Duration::from_secs(1));
        let seen = load.take();
        none_failed(&seen)?;
        total += seen.ok;
        let share = seen.share("v2");
        ensure!(
            (share - f64::from(v2) / 100.0).abs() < if v2 == 50 { 0.15 } else { 0.001 },
            "{v1}/{v2}: v2 has {share}"
        );
    }
    Ok(format!("{total} requests, seen live after {waits:?} ms"))
}

fn refused(mesh: &mut Mesh, load: &Load) -> anyhow::Result<String> {
    load.take();
    let bad = resources::split(100, 0, "    fooBar: 1\n");
    let (code, text) = mesh.cli_any(&["apply", "-f", "-", "--wait"], Some(&bad))?;
    ensure!(code != 0, "the bad resource was accepted");
    ensure!(text.contains("fooBar"), "the refusal does not name the field: {text}");
    sleep(Duration::from_secs(1));
    let seen = load.take();
    none_failed(&seen)?;
    ensure!(seen.share("v2") == 1.0, "traffic has moved");
    Ok(format!("exit code {code}: {}", text.trim().lines().next().unwrap_or_default()))
}

fn authorization(mesh: &mut Mesh, load: &Load) -> anyhow::Result<String> {
    mesh.apply(&resources::deny_a())?;
    let denied = wait_until("denial is live", Duration::from_secs(1), || {
        load.take();
        sleep(Duration::from_millis(150));
        let seen = load.take();
        Ok(seen.ok == 0 && seen.failed > 0 && seen.failures.iter().all(|f| f.contains("403")))
    })?;
    mesh.cli(&["delete", "AuthorizationPolicy", "no-a", "-n", NAMESPACE, "--wait"], None)?;
    let restored = wait_until("traffic is back", Duration::from_secs(1), || {
        load.take();
        sleep(Duration::from_millis(150));
        let seen = load.take();
        Ok(seen.failed == 0 && seen.ok > 0)
    })?;
    Ok(format!("denied after {} ms, back after {} ms", denied.as_millis(), restored.as_millis()))
}

fn outage(mesh: &mut Mesh, load: &Load) -> anyhow::Result<String> {
    load.take();
    mesh.kill_control()?;
    sleep(Duration::from_secs(2));
    let b = mesh.member("b-v1")?; // Has no share of the traffic now.
    let (inbound, admin) = (b.inbound, b.admin);
    b.sidecar.take().context("b-v1 runs")?.terminate(Duration::from_secs(15))?;
    let own = identity(mesh, "a")?;
    ensure!(get(inbound, Some(&own)).is_err(), "the stopped sidecar still serves");
    mesh.restart_sidecar("b-v1")?;
    let ready = wait_until("the sidecar serves from disk", Duration::from_secs(1), || {
        Ok(http_status(admin, "/ready").unwrap_or(0) == 200 && get(inbound, Some(&own)).unwrap_or(0) == 200)
    })?;
    sleep(Duration::from_secs(1));
    let seen = load.take();
    none_failed(&seen)?;
    mesh.start_control()?;
    // Everything is steerable again: a change reaches every proxy.
    wait_until("the restarted control service steers again", Duration::from_secs(40), || {
        Ok(mesh.apply(&resources::split(0, 100, "    timeout: 10s\n")).is_ok())
    })?;
    sleep(Duration::from_secs(1));
    none_failed(&load.take())?;
    Ok(format!(
        "{} requests during the outage, restarted sidecar served after {} ms",
        seen.ok,
        ready.as_millis()
    ))
}

fn rotation(mesh: &mut Mesh, load: &Load) -> anyhow::Result<String> {
    load.take();
    let names = ["a", "b-v1", "b-v2", "gateway"];
    let serials = |mesh: &Mesh| -> anyhow::Result<Vec<String>> {
        names.iter().map(|name| Ok(kept(mesh, name)?.chain_pem)).collect()
    };
    let before = serials(mesh)?;
    let took = wait_until("every certificate was renewed", Duration::from_secs(40), || {
        Ok(serials(mesh)?.iter().zip(&before).all(|(a, b)| a != b))
    })?;
    // Long enough that every certificate of the beginning has expired.
    sleep(Duration::from_secs(22).saturating_sub(took));
    let seen = load.take();
    none_failed(&seen)?;
    Ok(format!("{} requests, 4 certificates renewed after {:.1} s", seen.ok, took.as_secs_f64()))
}

fn termination(mesh: &mut Mesh, load: &Load) -> anyhow::Result<String> {
    mesh.apply(&resources::whole())?;
    let both = wait_until("both instances are used", Duration::from_secs(2), || {
        load.take();
        sleep(Duration::from_millis(300));
        let seen = load.take();
        none_failed(&seen)?;
        Ok(seen.share("v1") > 0.2 && seen.share("v2") > 0.2)
    })?;
    load.take();
    let b = mesh.member("b-v2")?;
    b.sidecar.take().context("b-v2 runs")?.terminate(Duration::from_secs(15))?;
    sleep(Duration::from_secs(2));
    let seen = load.take();
    none_failed(&seen)?;
    sleep(Duration::from_secs(1));
    let after = load.take();
    none_failed(&after)?;
    ensure!(after.share("v1") == 1.0, "the ended instance still answers");
    mesh.restart_sidecar("b-v2")?;
    wait_until("the instance is back", Duration::from_secs(10), || {
        load.take();
        sleep(Duration::from_millis(300));
        let seen = load.take();
        none_failed(&seen)?;
        Ok(seen.share("v2") > 0.2)
    })?;
    Ok(format!("{} requests while it ended; both were used after {} ms", seen.ok, both.as_millis()))
}

fn ca_rotation(mesh: &mut Mesh, load: &Load) -> anyhow::Result<String> {
    load.take();
    let before = kept(mesh, "a")?.roots_pem;
    let answer = mesh.cli(&["ca", "rotate", "--root"], None)?;
    let chain = |mesh: &Mesh| -> anyhow::Result<String> {
        let pem = kept(mesh, "a")?.chain_pem;
        Ok(pem.rsplit("-----BEGIN CERTIFICATE-----").next().unwrap_or_default().to_owned())
    };
    let issuer = chain(mesh)?;
    let took = wait_until("certificates come from the new CA", Duration::from_secs(60), || {
        Ok(chain(mesh)? != issuer)
    })?;
    sleep(Duration::from_secs(1));
    let seen = load.take();
    none_failed(&seen)?;
    let roots = kept(mesh, "a")?.roots_pem;
    let word = if roots == before { "roots unchanged" } else { "roots extended" };
    let first = answer.trim().lines().next().unwrap_or_default().to_owned();
    Ok(format!("{} requests, {word}, new issuer after {:.1} s: {first}", seen.ok, took.as_secs_f64()))
}

/// What a client shows, and whom it trusts.
#[derive(Clone)]
struct Identity {
    certificate: Option<(String, String)>,
    roots_pem: String,
}

/// What a proxy keeps of its identity: chain, key, trust bundle.
struct Kept {
    chain_pem: String,
    key_pem: String,
    roots_pem: String,
}

fn kept(mesh: &Mesh, name: &str) -> anyhow::Result<Kept> {
    let text = std::fs::read_to_string(mesh.state_dir(name).join("identity.json"))?;
    let value: serde_json::Value = serde_json::from_str(&text)?;
    let part = |pointer: &str| {
        let text = value.pointer(pointer).and_then(serde_json::Value::as_str).map(str::to_owned);
        text.with_context(|| format!("identity of {name} has no {pointer}"))
    };
    let (chain_pem, key_pem) = (part("/chainPem")?, part("/keyPem")?);
    Ok(Kept { chain_pem, key_pem, roots_pem: part("/bundle/pem")? })
}

/// The current identity of a member, from its state folder.
fn identity(mesh: &Mesh, name: &str) -> anyhow::Result<Identity> {
    let kept = kept(mesh, name)?;
    Ok(Identity { certificate: Some((kept.chain_pem, kept.key_pem)), roots_pem: kept.roots_pem })
}

/// A's identity as somebody else would forge it: right name, wrong CA.
fn stranger() -> anyhow::Result<(String, String)> {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
    let mut ca = CertificateParams::new(Vec::<String>::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Issuer::new(ca, KeyPair::generate()?);
    let mut leaf = CertificateParams::new(Vec::<String>::new())?;
    leaf.subject_alt_names =
        vec![SanType::URI(format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/a").try_into()?)];
    let key = KeyPair::generate()?;
    Ok((leaf.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
}

fn plaintext_get(address: SocketAddr) -> anyhow::Result<u16> {
    http_status(address, "/")
}

/// GET over TLS with an identity; the server's chain is verified, its name is a SPIFFE id and is not.
fn get(address: SocketAddr, identity: Option<&Identity>) -> anyhow::Result<u16> {
    let identity = identity.context("no identity")?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(identity.roots_pem.as_bytes()) {
        roots.add(certificate?)?;
    }
    let builder = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(chain_only::ChainOnly::new(roots)?));
    let mut config = match &identity.certificate {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes())?)?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from("b.demo.mesh")?;
    let mut session = rustls::ClientConnection::new(Arc::new(config), name)?;
    let mut tcp = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    tcp.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut tls = rustls::Stream::new(&mut session, &mut tcp);
    tls.write_all(b"GET / HTTP/1.1\r\nhost: b.demo.mesh\r\nconnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    tls.read_exact(&mut head)?;
    std::str::from_utf8(&head)?.get(9..12).and_then(|s| s.parse().ok()).context("answer is not HTTP")
}

mod chain_only {
    //! Verification of the chain without the name, for a client that knows SPIFFE ids only.

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
    use std::sync::Arc;

    #[derive(Debug)]
    pub(super) struct ChainOnly(Arc<WebPkiServerVerifier>);

    impl ChainOnly {
        pub(super) fn new(roots: RootCertStore) -> anyhow::Result<Self> {
            Ok(Self(WebPkiServerVerifier::builder(Arc::new(roots)).build()?))
        }
    }

    impl ServerCertVerifier for ChainOnly {
        fn verify_server_cert(
            &self,
            leaf: &CertificateDer<'_>,
            chain: &[CertificateDer<'_>],
            name: &ServerName<'_>,
            ocsp: &[u8],
            now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            match self.0.verify_server_cert(leaf, chain, name, ocsp, now) {
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => Ok(ServerCertVerified::assertion()),
                other => other,
            }
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls12_signature(message, certificate, dss)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls13_signature(message, certificate, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    }
}
