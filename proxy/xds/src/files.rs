//! Configuration from files.
//!
//! A file holds a `DiscoveryResponse`. It is read at the start and whenever another file is moved to its place (or a
//! symbolic link on the way to it is), as Envoy does: a file that is written in place is not looked at, because half of it
//! could be read. Where a folder is watched, every change of that folder counts too. What is refused changes nothing.
//!
//! The files are looked at four times a second instead of being watched through the kernel: one call per file costs
//! nothing beside everything else, works on every file system (inotify is silent on network and some overlay ones), follows
//! symbolic links on its own, and needs no other crate.

use crate::ads::Kind;
use crate::ads::session::Response;
use crate::ads::stream::from_state_of_the_world;
use crate::feed::links::LinkId;
use crate::feed::{Feed, Raw};
use crate::source::FileSource;
use crate::translate::files::{Disk, FileReader};
use outrigger_api::envoy::service::discovery::v3::DiscoveryResponse;
use outrigger_api::strict::{self, Format};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How often a file is looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What tells one file from another that was moved to its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Identity {
    file: Option<(u64, u64, Option<SystemTime>)>,
    folder: Option<(u64, u64, Option<SystemTime>)>,
}

impl Identity {
    fn of(source: &FileSource) -> Self {
        let file = fs::metadata(&source.path).ok().map(|m| (m.dev(), m.ino(), m.created().ok()));
        let folder = source.watched_directory.as_ref().and_then(|path| fs::metadata(path).ok());
        Self { file, folder: folder.map(|m| (m.dev(), m.ino(), m.modified().ok())) }
    }
}

/// Reads the file now and whenever it is replaced, until the feed wants nothing from it any more.
///
/// Cancel safety: the feed is changed between awaits only.
pub async fn follow(feed: Arc<Mutex<Feed>>, link: LinkId, kind: Kind, source: FileSource) {
    let mut known = None;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let bell = locked(&feed, |f| f.bell(link));
    loop {
        tokio::select! {
            _ = look.tick() => {}
            // Other names are wanted now: they may be in the file.
            () = bell.notified() => { known = None; }
        }
        if locked(&feed, |f| f.is_over(link)) {
            return;
        }
        let identity = Identity::of(&source);
        if known.as_ref() != Some(&identity) {
            known = Some(identity);
            // Small local files, on the thread that does everything but requests.
            take(&feed, link, kind, &source, &Disk);
        }
        locked(&feed, |f| f.tick(Instant::now()));
    }
}

/// Reads the file once into the feed. Whether it could be read and understood; what the feed refuses of it is in its status.
pub fn take(
    feed: &Mutex<Feed>,
    link: LinkId,
    kind: Kind,
    source: &FileSource,
    files: &dyn FileReader,
) -> bool {
    match read(source, files) {
        Err(reasons) => {
            tracing::warn!(
                path = source.path,
                reasons,
                "configuration file refused, the last good one stays"
            );
            locked(feed, |f| f.note_failure(kind, &source.path, reasons));
            false
        }
        Ok((mut response, raws)) => {
            response.type_url = kind.type_url().to_owned();
            locked(feed, |f| {
                f.note_read(&source.path);
                f.connected(link);
                f.received(link, response, raws, Instant::now());
            });
            true
        }
    }
}

fn read(source: &FileSource, files: &dyn FileReader) -> Result<(Response, Vec<Raw>), String> {
    let bytes = files.read(&source.path).map_err(|error| format!("cannot be read: {error}"))?;
    let message = if source.path.ends_with(".pb") {
        strict::from_binary(
            &format!("type.googleapis.com/{}", <DiscoveryResponse as prost::Name>::full_name()),
            &bytes,
        )
    } else {
        let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
        let format = if source.path.ends_with(".json") { Format::Json } else { Format::Yaml };
        strict::from_text::<DiscoveryResponse>(&text, format)
    };
    let every = |problems: Vec<strict::Problem>| {
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let message = message.map_err(every)?;
    for notice in &message.notices {
        tracing::info!(path = source.path, %notice, "field has no effect");
    }
    let message = message.into_typed::<DiscoveryResponse>().map_err(|problem| problem.to_string())?;
    Ok(from_state_of_the_world(message))
}

fn locked<T>(feed: &Mutex<Feed>, f: impl FnOnce(&mut Feed) -> T) -> T {
    f(&mut feed.lock().unwrap_or_else(PoisonError::into_inner))
}
