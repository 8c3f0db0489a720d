//! Where a resource that is named and not given comes from.

use crate::ads::Kind;
use crate::ads::backoff::Bounds;
use std::time::Duration;

/// How long a first answer is waited for where nothing is said (`initial_fetch_timeout`). Envoy's.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// Where named resources come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The aggregated stream of the bootstrap.
    #[default]
    Aggregated,
    /// A file that is read again whenever another is moved there.
    File(FileSource),
    /// A stream that carries one kind alone.
    Own(GrpcSource),
}

/// A file with resources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileSource {
    /// The file: `.yaml`, `.yml` and `.json` hold a `DiscoveryResponse` as text, `.pb` its binary encoding.
    pub path: String,
    /// A folder in which any change is a reason to read the file again; `None`: only the file itself counts.
    pub watched_directory: Option<String>,
}

/// A management server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrpcSource {
    /// Delta or state of the world.
    pub delta: bool,
    /// The static cluster that reaches it.
    pub cluster: String,
    /// `:authority` of the calls; empty: the cluster's name.
    pub authority: String,
    /// Headers of the calls, lower case.
    pub metadata: Vec<(String, String)>,
    /// Waits between streams (`retry_policy.retry_back_off`).
    pub backoff: Bounds,
    /// The node goes with the first request of a stream only; otherwise with every one.
    pub node_once: bool,
}

/// One name that a resource takes from somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Of what kind.
    pub kind: Kind,
    /// Which one.
    pub name: String,
    /// From where.
    pub source: Source,
    /// How long the resource that names it waits for it; `None`: for ever.
    pub fetch_timeout: Option<Duration>,
}
