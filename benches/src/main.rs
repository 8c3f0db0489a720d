//! `cargo bench-proxy`: starts the macro benchmark, `benches/macro/bench.py`, with the arguments it is given.
//!
//! A program rather than a script alone, so that one command does it from anywhere in the repository.

use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("macro/bench.py");
    match Command::new("python3").arg(script).args(std::env::args_os().skip(1)).status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("error: python3: {error}");
            ExitCode::FAILURE
        }
    }
}
