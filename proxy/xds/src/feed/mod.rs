//! From what a control service sends to what the proxy does.
//!
//! A response's resources are translated one by one; those that cannot be translated or compiled are refused with every
//! reason, while the others take effect ([`warm`] says when). What is in force is written to disk ([`crate::last_good`]:
//! policy at once, endpoints soon), so that a proxy that starts while the control service is away serves again at once.
//!
//! Reading order: here (what a feed holds, and how it takes effect) · [`receive`] (a response) · [`interest`] (what is subscribed
//! to) · [`warm`] · [`rework`] (what resources take their meaning from) · [`disk`] · [`status`].

mod disk;
pub mod held;
mod interest;
pub mod links;
mod receive;
pub mod refs;
mod rework;
mod status;
pub mod warm;

pub use status::{FeedStatus, KindStatus};

use crate::ads::session::{Request, Variant};
use crate::ingredients::Ingredients;
use crate::last_good::LastGood;
use crate::runtime::Runtime;
use crate::source::Wanted;
use held::{HeldMap, merge};
use links::{LinkId, LinkPlan, Links};
use outrigger_traffic::config::{Config, ConfigError, Endpoints, Secret};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use warm::{Chosen, Warming};

/// What takes configurations: the engine's handle, or a recorder in a test.
pub trait Sink: Send + Sync {
    /// Replaces the whole configuration, or refuses it with every reason and changes nothing.
    ///
    /// # Errors
    /// Every reason; [`ConfigError::resource`] is `kind/name` of the resource at fault.
    fn apply(&self, config: Config) -> Result<u64, Vec<ConfigError>>;

    /// Replaces the endpoints of an EDS service.
    ///
    /// # Errors
    /// Every reason.
    fn apply_endpoints(&self, endpoints: &Endpoints) -> Result<(), Vec<ConfigError>>;
}

/// A resource as it travels.
#[derive(Clone, Debug)]
pub struct Raw {
    /// Name; empty in a state-of-the-world response, where it is read from the resource.
    pub name: String,
    /// Version.
    pub version: String,
    /// Type URL of the resource.
    pub type_url: String,
    /// Bytes.
    pub bytes: Arc<[u8]>,
}

/// Makes the static part of the bootstrap file, and what it names, from what it takes its meaning from.
pub type Remake = Box<dyn Fn(&Ingredients) -> Result<(Config, Vec<Wanted>), Vec<ConfigError>> + Send + Sync>;

/// How long after it failed a configuration that waited is tried again.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// One proxy's configuration feed.
pub struct Feed {
    links: Links,
    /// From the bootstrap file; dynamic resources of the same name replace it.
    base: Config,
    /// What that names, with the source.
    base_wanted: Vec<Wanted>,
    /// Makes the static part anew from what it takes its meaning from; `None`: it takes none.
    remake: Option<Remake>,
    /// Runtime values, settings of extensions, scopes.
    ingredients: Arc<Ingredients>,
    accepted: HeldMap,
    warming: Warming,
    sink: Arc<dyn Sink>,
    last_good: Option<LastGood>,
    /// Counts changes of what is accepted.
    changes: u64,
    /// Something accepted is not on disk yet.
    unsaved: bool,
    /// When to try again what waited and could not be applied.
    retry_at: Option<Instant>,
    /// Counters and current refusals.
    pub status: FeedStatus,
}

impl Feed {
    /// A feed with one aggregated stream that has not spoken to any server. The static part is not applied yet: see
    /// [`Self::start`].
    pub fn new(variant: Variant, base: Config, sink: Arc<dyn Sink>, last_good: Option<LastGood>) -> Self {
        Self::with_links(vec![LinkPlan::everything(variant)], base, sink, last_good)
    }

    /// As [`Self::new`], with these streams; [`LinkId`] is the position among them.
    pub fn with_links(
        links: Vec<LinkPlan>,
        base: Config,
        sink: Arc<dyn Sink>,
        last_good: Option<LastGood>,
    ) -> Self {
        Self {
            links: Links::new(links),
            base,
            base_wanted: Vec::new(),
            remake: None,
            ingredients: Arc::default(),
            accepted: HeldMap::new(),
            warming: Warming::default(),
            sink,
            last_good,
            changes: 0,
            unsaved: false,
            retry_at: None,
            status: FeedStatus::default(),
        }
    }

    /// What the static part names, with the source.
    #[must_use]
    pub fn naming(mut self, wanted: Vec<Wanted>) -> Self {
        self.base_wanted = wanted;
        self
    }

    /// How the static part is made anew when what it takes its meaning from changes, and that to begin with.
    #[must_use]
    pub fn remaking(mut self, remake: Remake, ingredients: Ingredients) -> Self {
        self.remake = Some(remake);
        self.ingredients = Arc::new(ingredients);
        self
    }

    /// Runtime values.
    pub fn runtime(&self) -> &Runtime {
        &self.ingredients.runtime
    }

    /// Changes runtime values, with everything that names them.
    ///
    /// # Errors
    /// Every reason; then nothing has changed.
    pub fn change_runtime(
        &mut self,
        now: Instant,
        change: impl FnOnce(&mut Runtime) -> Result<(), String>,
    ) -> Result<(), Vec<String>> {
        let mut ingredients = Ingredients::clone(&self.ingredients);
        change(&mut ingredients.runtime).map_err(|reason| vec![reason])?;
        self.rework(ingredients, now).map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    /// Applies the static part together with the last good resources from disk, or alone when those are unusable.
    /// Returns how many resources came from disk.
    ///
    /// # Errors
    /// Every reason why the static part cannot be applied.
    pub fn start(&mut self, now: Instant) -> Result<usize, Vec<ConfigError>> {
        self.update_interest();
        self.restore();
        let restored = self.accepted.len();
        if restored > 0 {
            self.update_interest();
            match self.put_in_force(now) {
                Ok(()) => return Ok(restored),
                Err(errors) => {
                    tracing::warn!(?errors, "last good resources cannot be applied, starting without them");
                    self.accepted.clear();
                    self.links.restart();
                    self.update_interest();
                }
            }
        }
        self.put_in_force(now).map(|()| 0)
    }

    /// Links that are to be followed from now on, each once.
    pub fn fresh_links(&mut self) -> Vec<(LinkId, LinkPlan)> {
        self.links.take_fresh()
    }

    /// Rings when there are any.
    pub fn fresh_bell(&self) -> Arc<Notify> {
        self.links.fresh_bell()
    }

    /// Whether nothing is wanted from a link any more: it need not be followed. It may be among [`Self::fresh_links`] again.
    pub fn is_over(&mut self, link: LinkId) -> bool {
        self.links.link(link).is_none_or(|link| link.is_over())
    }

    /// A stream was opened; returns what to send first.
    pub fn connected(&mut self, link: LinkId) -> Vec<Request> {
        self.update_interest();
        self.links.link(link).map(|link| link.connected()).unwrap_or_default()
    }

    /// A stream ended.
    pub fn disconnected(&mut self, link: LinkId) {
        if let Some(link) = self.links.link(link) {
            link.disconnected();
        }
    }

    /// Rings when there is something to send on a stream ([`Self::outgoing`]) that is no answer to it.
    pub fn bell(&mut self, link: LinkId) -> Arc<Notify> {
        self.links.link(link).map(|link| link.bell()).unwrap_or_default()
    }

    /// Changed subscriptions to send on a stream.
    pub fn outgoing(&mut self, link: LinkId) -> Vec<Request> {
        self.links.link(link).map(|link| link.outgoing()).unwrap_or_default()
    }

    /// Replaces secrets that come from this host (its own certificate and trust roots).
    ///
    /// # Errors
    /// Every reason; then the old ones stay.
    pub fn set_local_secrets(&mut self, secrets: Vec<Secret>, now: Instant) -> Result<(), Vec<ConfigError>> {
        let before = self.base.secrets.clone();
        for secret in secrets {
            match self.base.secrets.iter_mut().find(|s| s.name == secret.name) {
                Some(slot) => *slot = secret,
                None => self.base.secrets.push(secret),
            }
        }
        self.put_in_force(now).inspect_err(|_| self.base.secrets = before)
    }

    /// Time passed: what has waited long enough takes effect. What could not be applied then (an address that was taken,
    /// say) is tried again every [`RETRY_AFTER`], because the server has had its answer and sends nothing more.
    pub fn tick(&mut self, now: Instant) {
        let again = self.retry_at.is_some_and(|at| now >= at);
        if !self.warming.is_waiting() && !again {
            return;
        }
        let chosen = self.warming.choose(&self.accepted, &self.ingredients, &self.base, now);
        if !again && self.warming.is_in_force(&chosen) {
            return;
        }
        if let Err(errors) = self.enforce(chosen) {
            tracing::warn!(?errors, "configuration that waited cannot be applied; tried again");
            self.retry_at = now.checked_add(RETRY_AFTER);
        }
    }

    /// Whether [`Self::tick`] has something to do.
    pub fn is_waiting(&self) -> bool {
        self.warming.is_waiting() || self.retry_at.is_some()
    }

    /// Resources in force or accepted, for `/config_dump`.
    pub fn accepted(&self) -> &HeldMap {
        &self.accepted
    }

    fn put_in_force(&mut self, now: Instant) -> Result<(), Vec<ConfigError>> {
        let chosen = self.warming.choose(&self.accepted, &self.ingredients, &self.base, now);
        self.enforce(chosen)
    }

    /// Applies what was chosen.
    fn enforce(&mut self, chosen: Chosen) -> Result<(), Vec<ConfigError>> {
        let config = merge(&self.base, chosen.values().map(AsRef::as_ref));
        if self.warming.is_waiting() {
            // What waits must be valid too: the server hears of a mistake now, not when it takes effect.
            let all = merge(&self.base, self.accepted.values().map(|h| h.resource.as_ref()));
            outrigger_traffic::compile(&all, None)?;
        }
        self.sink.apply(config)?;
        self.warming.commit(chosen);
        self.retry_at = None;
        Ok(())
    }
}

#[cfg(test)]
mod tick_tests;
