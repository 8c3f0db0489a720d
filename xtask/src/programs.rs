//! The product's programs, built.

use anyhow::{Context, ensure};
use std::process::Command;

/// Their packages. Always all of them: what one package asks of a common library, all are built with, so that another
/// choice of packages would be another build of nearly everything.
const PACKAGES: &[&str] = &["outrigger-proxy", "outrigger-control", "outrigger", "outrigger-agent"];

/// Builds them with a profile of Cargo's.
pub fn build(profile: &str) -> anyhow::Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--locked", "--profile", profile]);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    let status = command.status().context("cargo")?;
    ensure!(status.success(), "build failed");
    Ok(())
}
