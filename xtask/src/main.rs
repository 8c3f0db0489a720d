//! Development tasks: `cargo demo`, `cargo xtask api`, `cargo xtask deps`, `cargo xtask peers`, `cargo xtask scenarios`, `cargo xtask images`.

#![allow(unreachable_pub, reason = "a binary has no outside; `pub` marks what a file offers to its siblings")]

mod api;
mod demo;
mod deps;
mod images;
mod moto;
mod peers;
mod programs;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask VERB

  demo [--check] [--profile NAME]   the mesh on loopback, with load; --check runs the whole story and judges it
  peers [NAME…]                     what needs other people's programs; installs them first. `agent` runs only when it
                                    is named: it starts a Docker daemon
  scenarios [calls] [failures] [--hand]
                                    ECS Anywhere hosts with a Docker each, and every way of calling and of failing;
                                    --hand keeps them and gives a shell. Needs root
  images [--profile NAME] [--tar-only]
                                    static binaries and container images from them; --tar-only packs what docker
                                    would build them from
  api [--write]                     what embedding programs use, compared with docs/api.txt
  deps                              the dependency arrows between crates, and what may not come in
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.first().map(String::as_str) {
        Some("api") => api::run(args.get(1..).unwrap_or_default()),
        Some("demo") => demo::run(args.get(1..).unwrap_or_default()),
        Some("demo-service") => demo::service::run(args.get(1..).unwrap_or_default()),
        Some("demo-setup") => demo::setup::run(args.get(1..).unwrap_or_default()),
        Some("deps") => deps::check(),
        Some("images") => images::run(args.get(1..).unwrap_or_default()),
        Some("scenarios") => peers::scenarios(args.get(1..).unwrap_or_default()),
        Some("peers") => peers::run(args.get(1..).unwrap_or_default()),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
