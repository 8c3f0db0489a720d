//! What a person sees.

use super::load::{Load, quantile};
use super::mesh::{Mesh, PUBLIC_HOST, http_get};
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Prints the addresses and three things to try, then what flows, every second until Ctrl-C.
pub fn show(mesh: &mut Mesh, load: &Load) -> anyhow::Result<()> {
    introduce(mesh)?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let _ = runtime.block_on(tokio::signal::ctrl_c());
        flag.store(true, Ordering::Relaxed);
    });
    let rewrite = std::io::stdout().is_terminal();
    let mut first = true;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_secs(1));
        let seen = load.take();
        if rewrite && !first {
            print!("\x1b[4A");
        }
        first = false;
        let all = seen.ok + seen.failed;
        let success = if all == 0 { 0.0 } else { seen.ok as f64 * 100.0 / all as f64 };
        println!(
            "\x1b[2K  {all} requests/s   success {success:.1} %   mutual TLS to B: {}",
            mutual_tls(mesh)
        );
        println!("\x1b[2K  version   share   p50 ms   p99 ms");
        for version in ["v1", "v2"] {
            let latencies = seen.versions.get(version).map_or(&[][..], Vec::as_slice);
            println!(
                "\x1b[2K  b {version}      {:>4.0} %   {:>6.2}   {:>6.2}",
                seen.share(version) * 100.0,
                quantile(latencies, 0.5),
                quantile(latencies, 0.99)
            );
        }
        std::io::stdout().flush()?;
        for failure in &seen.failures {
            eprintln!("  failed: {failure}");
            first = true;
        }
    }
    println!("\nstopping");
    Ok(())
}

fn introduce(mesh: &Mesh) -> anyhow::Result<()> {
    let ca = mesh.dir.join("public-ca.pem");
    std::fs::write(&ca, &mesh.public_ca_pem)?;
    let split = mesh.dir.join("split.yaml");
    std::fs::write(&split, super::resources::split(50, 50, ""))?;
    let deny = mesh.dir.join("deny.yaml");
    std::fs::write(&deny, super::resources::deny_a())?;
    let port = mesh.gateway_address.port();
    println!("\n  end users → gateway → a → b (v1, v2); every hop between proxies is mutual TLS\n");
    println!("  gateway       https://{}   (host {PUBLIC_HOST})", mesh.gateway_address);
    println!("  operator API  http://{}", mesh.api);
    println!("  xDS           {}", mesh.xds);
    for member in &mesh.members {
        println!("  {:<12}  inbound {}   admin http://{}", member.name, member.inbound, member.admin);
    }
    println!("\n  export OUTRIGGER_SERVER=http://{} OUTRIGGER_TOKEN={}\n", mesh.api, mesh.admin_token()?);
    println!("  three things to try:");
    println!("  1. outrigger apply -f {} --wait        # half of the traffic to v2", split.display());
    println!(
        "  2. outrigger apply -f {} --wait         # B refuses A; then: outrigger delete AuthorizationPolicy no-a -n demo",
        deny.display()
    );
    println!(
        "  3. curl --cacert {} --resolve {PUBLIC_HOST}:{port}:127.0.0.1 https://{PUBLIC_HOST}:{port}/",
        ca.display()
    );
    println!();
    Ok(())
}

fn mutual_tls(mesh: &Mesh) -> &'static str {
    let b = mesh.members.iter().filter(|m| m.name.starts_with("b-"));
    let seen: String = b.filter_map(|m| http_get(m.admin, "/stats/prometheus").ok()).collect();
    let line = |policy: &str| seen.contains(&format!("connection_security_policy=\"{policy}\""));
    match (line("mutual_tls"), line("none")) {
        (true, false) => "yes",
        (true, true) => "partly",
        (false, _) => "no",
    }
}
