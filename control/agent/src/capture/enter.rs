//! The child that steps into a network namespace and becomes another program.
//!
//! `outrigger-agent enter --net FILE [--root FOLDER] -- PROGRAM ARGUMENT…`: a process of one thread, started anew for each
//! program, so that the agent itself never leaves its own namespace. With `--root` the program is the host's: an agent in a
//! container brings no `nft` of its own.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where programs are looked for. The environment of the agent is not handed on.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Exit code when there is no such program, as shells have it.
pub const NOT_FOUND: i32 = 127;

/// Flags of the verb.
#[derive(Debug, clap::Args)]
pub struct Enter {
    /// The namespace, as a file.
    #[arg(long)]
    pub net: PathBuf,
    /// Root folder of the program.
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// Program and arguments.
    #[arg(last = true, required = true)]
    pub program: Vec<OsString>,
}

/// Becomes the program; returns only when it cannot.
///
/// *Errors*: the namespace or the root cannot be entered, or the namespace is the one we are in: rules meant for a
/// container must never be the host's.
pub fn enter(flags: &Enter) -> anyhow::Result<i32> {
    let namespace = File::open(&flags.net).with_context(|| flags.net.display().to_string())?;
    let own = std::fs::metadata("/proc/self/ns/net").context("/proc/self/ns/net")?;
    let other = namespace.metadata()?;
    ensure!(
        (own.dev(), own.ino()) != (other.dev(), other.ino()),
        "{} is the namespace of the agent itself",
        flags.net.display()
    );
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("{} cannot be entered", flags.net.display()))?;
    // A listener that closes hands what waits in its queue to its sibling, so that an upgrade of the sidecar loses no connection.
    // Linux 5.14 and later; where it cannot be set, an upgrade may reset connections nobody has accepted yet.
    let _ = std::fs::write("/proc/sys/net/ipv4/tcp_migrate_req", "1");
    if let Some(root) = &flags.root {
        std::os::unix::fs::chroot(root).with_context(|| root.display().to_string())?;
        std::env::set_current_dir("/")?;
    }
    let (program, arguments) = flags.program.split_first().context("a program is needed")?;
    let error = Command::new(program).args(arguments).env_clear().env("PATH", PATH).exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        return Ok(NOT_FOUND);
    }
    Err(error).with_context(|| program.to_string_lossy().into_owned())
}
