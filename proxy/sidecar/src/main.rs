//! `outrigger-proxy`: sidecar and edge gateway.
//!
//! Reading order: [`cli`] · [`start`] (from flags to a running proxy, and its end) · [`bootstrap`] and [`mesh`] (the two
//! ways to a configuration) · [`links`] and [`feed`] (where configuration comes from later) · [`runtime`] · [`otlp`], [`logs`],
//! [`logging`], [`health`], [`concurrency`], [`footprint`].

#![allow(unreachable_pub, reason = "a binary has no outside; `pub` marks what a file offers to its siblings")]

mod bootstrap;
mod cli;
mod concurrency;
mod feed;
mod footprint;
mod health;
mod links;
mod logging;
mod logs;
mod mesh;
mod otlp;
mod runtime;
mod start;

use clap::Parser;
use cli::{Cli, Mode, Verb};
use std::process::ExitCode;

/// ADR 0017: what is allocated per HTTP/2 stream or connection costs a fifth of all CPU with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Verb::Health(flags)) = &cli.verb {
        return health::check(flags);
    }
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("error: a TLS provider was installed before");
        return ExitCode::FAILURE;
    }
    let result = match cli.run.mode {
        Mode::Validate => bootstrap::validate(&cli.run),
        Mode::Serve => start::serve(&cli.run),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
