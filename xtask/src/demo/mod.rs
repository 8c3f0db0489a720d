//! `cargo demo`: the whole mesh on this machine, with steady load.
//!
//! [`mesh`] starts control service, applications, sidecars and gateway; [`resources`] is what the operator applies;
//! [`load`] is the end users; [`view`] shows what flows until Ctrl-C; [`story`] (`--check`) tries everything the mesh
//! promises and fails when a promise is broken.

mod load;
mod mesh;
mod process;
mod resources;
pub mod service;
pub mod setup;
mod story;
mod view;

use anyhow::Context;
use mesh::{Binaries, Mesh, PUBLIC_HOST, wait_until};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Requests a second of the load.
const RATE: u32 = 200;
/// Connections of the load.
const CONNECTIONS: u32 = 8;

/// Runs the demo: `[--check] [--profile NAME]`.
pub fn run(args: &[String]) -> anyhow::Result<()> {
    let check = args.iter().any(|a| a == "--check");
    let profile = args
        .iter()
        .position(|a| a == "--profile")
        .and_then(|i| args.get(i + 1))
        .map_or("release", String::as_str);
    let bin = build(profile)?;
    let dir = std::env::temp_dir().join(format!("outrigger-demo-{}", std::process::id()));
    let result = with_mesh(bin, &dir, check);
    if result.is_ok() {
        let _ = std::fs::remove_dir_all(&dir);
    } else {
        eprintln!("logs are in {}", dir.join("logs").display());
    }
    result
}

fn build(profile: &str) -> anyhow::Result<Binaries> {
    println!("building ({profile}) …");
    crate::programs::build(profile)?;
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent).context("where is the target folder")?;
    let folder = target.join(if profile == "dev" { "debug" } else { profile });
    let bin = |name: &str| -> PathBuf { folder.join(name) };
    Ok(Binaries {
        control: bin("outrigger-control"),
        proxy: bin("outrigger-proxy"),
        cli: bin("outrigger"),
        own: own.clone(),
    })
}

fn with_mesh(bin: Binaries, dir: &Path, check: bool) -> anyhow::Result<()> {
    let svid_ttl = Duration::from_secs(if check { 20 } else { 24 * 3600 });
    let mut mesh = Mesh::start(bin, dir, svid_ttl)?;
    mesh.add_member("b-v1", "b", "v1", None)?;
    mesh.add_member("b-v2", "b", "v2", None)?;
    mesh.add_member("a", "a", "v1", Some("b.demo.mesh"))?;
    let gateway_admin = mesh.start_gateway()?;
    let public = public_certificate()?;
    mesh.apply(&resources::subsets())?;
    mesh.apply(&resources::split(100, 0, ""))?;
    mesh.apply(&resources::edge(mesh.gateway_address, &public.certificate_pem, &public.key_pem))?;
    mesh.public_ca_pem = public.ca_pem;
    let mut admins: Vec<_> = mesh.members.iter().map(|m| m.admin).collect();
    admins.push(gateway_admin);
    wait_until("every proxy ready", Duration::from_secs(30), || {
        mesh.check_alive()?;
        Ok(admins.iter().all(|a| mesh::http_status(*a, "/ready").unwrap_or(0) == 200))
    })?;
    let load = load::Load::start(mesh.gateway_address, PUBLIC_HOST, &mesh.public_ca_pem, CONNECTIONS, RATE)?;
    if check { story::tell(&mut mesh, &load) } else { view::show(&mut mesh, &load) }
}

/// What end users see of the gateway.
struct PublicCertificate {
    ca_pem: String,
    certificate_pem: String,
    key_pem: String,
}

/// A certificate for end users, of a CA made for this run.
fn public_certificate() -> anyhow::Result<PublicCertificate> {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    // OpenSSL takes a certificate whose issuer has its own name for self-signed: the two need names that differ.
    params.distinguished_name.push(DnType::CommonName, "Outrigger demo CA");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate()?;
    let ca_pem = params.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(vec![PUBLIC_HOST.to_owned()])?;
    leaf.distinguished_name.push(DnType::CommonName, PUBLIC_HOST);
    let certificate = leaf.signed_by(&key, &issuer)?;
    Ok(PublicCertificate { ca_pem, certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
}
