//! The dependency arrows of ARCHITECTURE.md, checked over `cargo tree -e normal`.

use anyhow::{Context, bail};
use std::collections::BTreeSet;
use std::process::Command;

/// A package, and what must not be below it.
const RULES: &[(&str, &[&str])] = &[
    (
        "outrigger-traffic",
        &[
            "tokio",
            "hyper",
            "h2",
            "tonic",
            "prost",
            "tracing",
            "rustls",
            "outrigger-wire",
            "outrigger-engine",
            "outrigger-api",
        ],
    ),
    (
        "outrigger-wire",
        &["tokio", "hyper", "h2", "tonic", "prost", "rustls", "outrigger-traffic", "outrigger-engine"],
    ),
    (
        "outrigger-engine",
        &["tonic", "prost", "outrigger-api", "outrigger-xds", "outrigger-plan", "outrigger-control"],
    ),
    ("outrigger-xds", &["outrigger-engine", "outrigger-wire", "outrigger-plan", "outrigger-control"]),
    ("outrigger-proxy", &["outrigger-plan", "outrigger-control", "axum-extra", "redb"]),
    ("outrigger-api", &["outrigger-traffic", "outrigger-engine", "outrigger-plan"]),
    (
        "outrigger-plan",
        &["tokio", "tonic", "prost", "outrigger-api", "outrigger-engine", "outrigger-wire", "outrigger-xds"],
    ),
    ("outrigger-control", &["outrigger-engine", "outrigger-wire", "outrigger-xds"]),
    ("outrigger", &["outrigger-engine", "outrigger-wire", "outrigger-xds", "outrigger-control"]),
    (
        "outrigger-member",
        &[
            "tokio",
            "hyper",
            "tonic",
            "prost",
            "outrigger-api",
            "outrigger-traffic",
            "outrigger-plan",
            "outrigger-control",
        ],
    ),
    (
        "outrigger-channel",
        &["outrigger-api", "outrigger-traffic", "outrigger-engine", "outrigger-plan", "outrigger-control"],
    ),
    (
        "outrigger-agent",
        &[
            "outrigger-traffic",
            "outrigger-engine",
            "outrigger-wire",
            "outrigger-xds",
            "outrigger-plan",
            "outrigger-control",
        ],
    ),
];

/// Nowhere: other TLS stacks, and C outside the TLS provider.
const NOWHERE: &[&str] =
    &["ring", "openssl-sys", "native-tls", "libz-sys", "zstd-sys", "tikv-jemalloc-sys", "cmake-rs"];

/// The proxy's allocator, which only that binary may choose.
const ALLOCATOR: (&str, &str) = ("outrigger-proxy", "libmimalloc-sys");

/// Fails with every arrow that points the wrong way.
pub fn check() -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    for (package, banned) in RULES {
        let tree = below(package)?;
        let hits = banned.iter().chain(NOWHERE).filter(|b| tree.contains(**b));
        wrong.extend(hits.map(|b| format!("{package} reaches {b}")));
        if *package != ALLOCATOR.0 && tree.contains(ALLOCATOR.1) {
            wrong.push(format!("{package} reaches {}", ALLOCATOR.1));
        }
    }
    if !wrong.is_empty() {
        bail!("dependency rules broken:\n  {}", wrong.join("\n  "));
    }
    println!("dependency rules hold for {} packages", RULES.len());
    Ok(())
}

fn below(package: &str) -> anyhow::Result<BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--locked", "-e", "normal", "--prefix", "none", "--format", "{p}", "-p", package])
        .output()
        .context("cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree -p {package}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout)?;
    let mut names: BTreeSet<String> =
        text.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect();
    if !names.remove(package) {
        bail!("cargo tree does not know {package}");
    }
    Ok(names)
}
