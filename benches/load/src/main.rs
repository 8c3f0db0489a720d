//! `outrigger-load`: what stands around the proxy in the macro benchmark, on one thread each and on bare readiness, so
//! that neither side is dearer than the proxy under test.
//!
//! ```text
//! outrigger-load origin h1:PORT:BYTES h2:PORT:BYTES grpc:PORT:0 …   # static answers
//! outrigger-load load port=PORT key=value …                        # requests; prints one JSON object
//! outrigger-load floor listen=PORT upstream=PORT                   # copies bytes: what any proxy costs at least
//! ```
//!
//! Keys of `load` are those of [`options::Options`]. Modules in reading order: [`net`] sockets and readiness, [`http2`]
//! frames, [`options`], [`tally`] what is counted, [`run`] the loop, [`conn`] and [`client2`] one connection,
//! [`origin`], [`floor`].

mod net;

mod http2;

mod options;
mod tally;

mod client2;
mod conn;
mod run;

mod floor;
mod origin;

use rustix::process::{Resource, Rlimit, Signal};
use std::process::ExitCode;

const USAGE: &str = "usage: outrigger-load origin PROTO:PORT:BYTES… | load port=PORT key=value… | floor listen=PORT upstream=PORT";

/// Open files: one per connection, and S7 opens thousands.
const FILES_MAX: u64 = 1 << 17;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest = args.get(1..).unwrap_or_default();
    // Each of these is best effort: without it a run is noisier or smaller, and says so by its errors.
    let _ = rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit { current: Some(FILES_MAX), maximum: Some(FILES_MAX) },
    );
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let result = match args.first().map(String::as_str) {
        Some("origin") => origin::run(rest),
        Some("load") => options::Options::parse(rest).and_then(run::run),
        Some("floor") => floor::run(rest),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outrigger-load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whatever went wrong: this is a tool, and its caller reads the text.
pub(crate) type Failure = Box<dyn std::error::Error>;
