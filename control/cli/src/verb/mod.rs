//! The verbs: one file each, one line each here.

mod apply;
mod attestation;
mod ca;
mod completion;
mod delete;
mod describe;
mod get;
mod host;
mod import;
mod login;
mod offboard;
mod onboard;
mod operator;
mod proxy;
mod source;
mod token;
mod transform;
mod version;
mod wait;
mod workload;

use crate::Global;
use crate::failure::Failure;

/// What can be asked for.
#[derive(clap::Subcommand)]
pub enum Verb {
    /// Save the server and the token for later invocations.
    Login(login::Login),
    /// Create or change resources, all of them or none.
    Apply(apply::Apply),
    /// Show resources.
    Get(get::Get),
    /// Show one resource in full.
    Describe(describe::Describe),
    /// Delete resources.
    Delete(delete::Delete),
    /// Proxies: what they hold, what they acknowledged.
    #[command(subcommand)]
    Proxy(proxy::Proxy),
    /// Discovery sources of workloads: ECS, Kubernetes, DNS, files.
    #[command(subcommand)]
    Source(source::Source),
    /// Workloads: those that registered, and those that sources found.
    #[command(subcommand)]
    Workload(workload::Workload),
    /// Tokens with which hosts join the mesh.
    #[command(subcommand)]
    Token(token::Token),
    /// Who may have an identity by proof, without a join token.
    #[command(subcommand)]
    Attestation(attestation::Attestation),
    /// Tokens with which operators call this API.
    #[command(subcommand)]
    Operator(operator::Operator),
    /// The certificate authority.
    #[command(subcommand)]
    Ca(ca::Ca),
    /// Bring hosts into the mesh.
    #[command(subcommand)]
    Onboard(onboard::Onboard),
    /// Take hosts out of the mesh.
    #[command(subcommand)]
    Offboard(offboard::Offboard),
    /// Hosts that were onboarded.
    #[command(subcommand)]
    Host(host::HostVerb),
    /// Make task definitions and the like fit for the mesh.
    #[command(subcommand)]
    Transform(transform::Transform),
    /// Turn another mesh's configuration into resources.
    #[command(subcommand)]
    Import(import::Import),
    /// Show this program's version and the server's.
    Version(version::Version),
    /// Print a completion script for a shell.
    Completion(completion::Completion),
}

impl Verb {
    /// Does it.
    ///
    /// # Errors
    /// Whatever the verb fails with.
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Login(verb) => verb.run(global).await,
            Self::Apply(verb) => verb.run(global).await,
            Self::Get(verb) => verb.run(global).await,
            Self::Describe(verb) => verb.run(global).await,
            Self::Delete(verb) => verb.run(global).await,
            Self::Proxy(verb) => verb.run(global).await,
            Self::Source(verb) => verb.run(global).await,
            Self::Workload(verb) => verb.run(global).await,
            Self::Token(verb) => verb.run(global).await,
            Self::Attestation(verb) => verb.run(global).await,
            Self::Operator(verb) => verb.run(global).await,
            Self::Ca(verb) => verb.run(global).await,
            Self::Onboard(verb) => verb.run(global).await,
            Self::Offboard(verb) => verb.run(global).await,
            Self::Host(verb) => verb.run(global).await,
            Self::Transform(verb) => verb.run(),
            Self::Import(verb) => verb.run(global),
            Self::Version(verb) => verb.run(global).await,
            Self::Completion(verb) => verb.run(),
        }
    }
}

/// Reads a number with a unit: `s`, `m`, `h` or `d`; in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.char_indices().next_back() {
        Some((at, 's')) => (text.get(..at), 1),
        Some((at, 'm')) => (text.get(..at), 60),
        Some((at, 'h')) => (text.get(..at), 3_600),
        Some((at, 'd')) => (text.get(..at), 86_400),
        _ => return Err("a number and a unit (s, m, h, d), e.g. 90m".to_owned()),
    };
    let number: u64 = number
        .unwrap_or_default()
        .parse()
        .map_err(|_| "a number and a unit (s, m, h, d), e.g. 90m".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "too long".to_owned())
}

/// Longest wait for proxies, in seconds; the server's limit. Checked before anything is changed.
const WAIT_SECONDS_MAX: u64 = 600;

/// Reads how long to wait for proxies.
fn wait_seconds(text: &str) -> Result<u64, String> {
    seconds(text).and_then(|asked| {
        if asked <= WAIT_SECONDS_MAX { Ok(asked) } else { Err(format!("at most {WAIT_SECONDS_MAX}s")) }
    })
}

#[cfg(test)]
mod tests {
    use super::{seconds, wait_seconds};

    #[test]
    fn wait_longer_than_the_server_allows_is_refused_before_anything_is_changed() {
        assert_eq!((wait_seconds("10m"), wait_seconds("600s")), (Ok(600), Ok(600)));
        assert!(wait_seconds("601s").is_err() && wait_seconds("1h").is_err());
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!((seconds("90m"), seconds("1d"), seconds("0s")), (Ok(5_400), Ok(86_400), Ok(0)));
        for bad in ["", "5", "m", "-1s", "1.5h", "5é", "99999999999999999d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
