//! Every source of configuration, each followed by a task: those of the bootstrap file, and those that resources name.

use crate::bootstrap::{self, Control, Way};
use crate::feed::FeedView;
use outrigger_api::envoy::config::core::v3::Node;
use outrigger_traffic::config::{Config, ConfigError, Endpoints};
use outrigger_xds::ads::Kind;
use outrigger_xds::ads::stream::{self, Service};
use outrigger_xds::bootstrap::Bootstrap;
use outrigger_xds::feed::links::{LinkId, LinkPlan};
use outrigger_xds::feed::{Feed, Sink};
use outrigger_xds::ingredients::Ingredients;
use outrigger_xds::source::Source;
use outrigger_xds::translate::files::Disk;
use outrigger_xds::{files, last_good};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What streams need to know that resources name.
pub struct Ground {
    /// The static resources: the clusters through which servers are reached.
    pub config: Config,
    /// Who this proxy is.
    pub node: Node,
}

/// Follows the sources of the bootstrap file, and from then on every one that a resource names.
pub fn follow(feed: Arc<Mutex<Feed>>, controls: Vec<Control>, ground: Ground, view: FeedView) {
    tokio::spawn(last_good::keep(feed.clone()));
    for (i, control) in controls.into_iter().enumerate() {
        spawn(&feed, LinkId(i), control.way, &view);
    }
    tokio::spawn(async move {
        let bell = locked(&feed).fresh_bell();
        loop {
            let fresh = locked(&feed).fresh_links();
            for (id, plan) in fresh {
                match way(id, &plan, &ground) {
                    Ok(way) => spawn(&feed, id, way, &view),
                    Err(errors) => tracing::error!(?errors, "source of configuration cannot be used"),
                }
            }
            bell.notified().await;
        }
    });
}

fn spawn(feed: &Arc<Mutex<Feed>>, link: LinkId, way: Way, view: &FeedView) {
    match way {
        Way::File(kind, source) => drop(tokio::spawn(files::follow(feed.clone(), link, kind, source))),
        Way::Stream(stream) => {
            let (address, options) = *stream;
            let (feed, status) = (feed.clone(), view.add_stream());
            let view = view.clone();
            tokio::spawn(async move {
                stream::run(feed, Arc::new(address), options, status.clone()).await;
                view.remove_stream(&status);
            });
        }
    }
}

/// How a source that a resource names is followed.
fn way(id: LinkId, plan: &LinkPlan, ground: &Ground) -> Result<Way, Vec<ConfigError>> {
    let kind = plan.kinds.first().copied().unwrap_or(Kind::Cluster);
    match &plan.source {
        Source::File(file) => Ok(Way::File(kind, file.clone())),
        Source::Own(server) => {
            bootstrap::stream(&ground.config, &ground.node, server, Service::Own(kind), id)
        }
        // Never made for a resource.
        Source::Aggregated => Err(Vec::new()),
    }
}

/// Compiles and forgets.
struct Dry;

impl Sink for Dry {
    fn apply(&self, config: Config) -> Result<u64, Vec<ConfigError>> {
        let mut errors = outrigger_traffic::compile(&config, None).err().unwrap_or_default();
        errors.extend(outrigger_engine::config::check(&config));
        if errors.is_empty() { Ok(0) } else { Err(errors) }
    }

    fn apply_endpoints(&self, _: &Endpoints) -> Result<(), Vec<ConfigError>> {
        Ok(())
    }
}

/// What is wrong in the files that a bootstrap names, and in the files that those name. Servers are not asked.
pub fn problems(bootstrap: &Bootstrap, controls: Vec<Control>) -> Vec<ConfigError> {
    let plans: Vec<LinkPlan> = controls.into_iter().map(|control| control.link).collect();
    let mut work: Vec<(LinkId, LinkPlan)> =
        plans.iter().cloned().enumerate().map(|(i, p)| (LinkId(i), p)).collect();
    let feed = Feed::with_links(plans, bootstrap.config.clone(), Arc::new(Dry), None);
    let ingredients = Ingredients { runtime: bootstrap.runtime.clone(), ..Ingredients::default() };
    let mut feed = feed.naming(bootstrap.wanted.clone()).remaking(bootstrap.remake(), ingredients);
    if let Err(errors) = feed.start(Instant::now()) {
        return errors;
    }
    work.extend(feed.fresh_links());
    let feed = Mutex::new(feed);
    while let Some((id, plan)) = work.pop() {
        if let (Source::File(file), Some(kind)) = (&plan.source, plan.kinds.first()) {
            files::take(&feed, id, *kind, file, &Disk);
        }
        work.extend(locked(&feed).fresh_links());
    }
    let refused = locked(&feed).status.refused.clone();
    refused.into_iter().map(|(resource, reason)| ConfigError::new(resource, "", reason)).collect()
}

fn locked(feed: &Mutex<Feed>) -> MutexGuard<'_, Feed> {
    feed.lock().unwrap_or_else(PoisonError::into_inner)
}
