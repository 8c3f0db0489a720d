//! `outrigger`: the operator's command line.
//!
//! In reading order: this file (arguments, dispatch), [`failure`] (what can go wrong, and with which exit
//! code), [`session`] (which server, which token), [`client`] (HTTP), [`output`] (tables, JSON, YAML),
//! [`diff`], [`transform`] (ECS task definitions), [`import`] (other meshes' configuration),
//! [`onboard`] (hosts), and [`verb`], one file each.

#![allow(unreachable_pub, reason = "a program has no API: `pub` means for the other modules")]

mod client;
mod diff;
mod failure;
mod import;
mod onboard;
mod output;
mod session;
mod transform;
mod verb;

use clap::Parser;

use crate::verb::Verb;

/// Steer an Outrigger mesh.
///
/// Exit codes: 0 done; 1 failed; 2 wrong usage; 3 resources refused; 4 conflict with somebody else's
/// change; 5 not found; 6 not allowed; 7 server not reached; 8 proxies did not acknowledge in time.
#[derive(Parser)]
#[command(name = "outrigger", version, about, long_about)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb takes.
#[derive(clap::Args, Clone)]
struct Global {
    /// The control service's operator API, e.g. <http://127.0.0.1:15080>.
    #[arg(long, global = true, env = "OUTRIGGER_SERVER")]
    server: Option<String>,
    /// Operator token.
    #[arg(long, global = true, env = "OUTRIGGER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// PEM file with the certificate to trust the server by, when it is called over https.
    #[arg(long, global = true, env = "OUTRIGGER_CA_CERT")]
    ca_cert: Option<std::path::PathBuf>,
    /// How to print: a table for people, JSON or YAML for programs.
    #[arg(short, long, global = true, value_enum, default_value_t = output::Format::Table)]
    output: output::Format,
}

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("outrigger: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    match runtime.block_on(arguments.verb.run(&arguments.global)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("outrigger: {failure}");
            std::process::ExitCode::from(failure.exit_code())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn command_line_is_well_formed() {
        super::Arguments::command().debug_assert();
    }
}
