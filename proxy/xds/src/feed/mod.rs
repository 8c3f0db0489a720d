//! From what a control service sends to what the proxy does.
//!
//! A response's resources are translated one by one; those that cannot be translated or compiled are refused with every
//! reason, while the others take effect ([`warm`] says when). What is in force is written to disk ([`crate::last_good`]:
//! policy at once, endpoints soon), so that a proxy that starts while the control service is away serves again at once.

pub mod held;
pub mod links;
pub mod refs;
mod rework;
pub mod warm;

use crate::ads::Kind;
use crate::ads::session::{Request, Response, Variant, Verdict};
use crate::ingredients::Ingredients;
use crate::last_good::{LastGood, Snapshot};
use crate::runtime::Runtime;
use crate::source::{Source, Wanted};
use crate::translate::{self, CameFrom, Given, Previous, Translated};
use held::{Held, HeldMap, merge};
use links::{LinkId, LinkPlan, Links};
use outrigger_traffic::config::{Config, ConfigError, Endpoints, Resource, Secret};
use refs::Refs;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
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

/// Numbers for metrics and for `/config_dump`.
#[derive(Clone, Debug, Default)]
pub struct FeedStatus {
    /// Responses handled.
    pub updates: u64,
    /// Responses with at least one refused resource.
    pub rejected: u64,
    /// The same by kind, and files that could not be read.
    pub kinds: BTreeMap<Kind, KindStatus>,
    /// Last refusal of each resource that is still refused.
    pub refused: BTreeMap<String, String>,
    /// How often the last good configuration was written to disk.
    pub saves: u64,
    /// How often that failed.
    pub save_failures: u64,
}

/// Numbers of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindStatus {
    /// Responses and files taken.
    pub success: u64,
    /// Responses and files with at least one refused resource.
    pub rejected: u64,
    /// Files that could not be read or understood.
    pub failure: u64,
}

impl FeedStatus {
    fn of(&mut self, kind: Kind) -> &mut KindStatus {
        self.kinds.entry(kind).or_default()
    }
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

    /// Takes in what is on disk.
    fn restore(&mut self) {
        let raws = self.last_good.as_ref().map(LastGood::load).unwrap_or_default();
        for raw in raws {
            let Some(kind) = Kind::from_type_url(&raw.type_url) else { continue };
            // A kind that is not followed any more would stay as it was for ever.
            if kind.is_wildcard() && self.links.of_wildcard(kind).is_none() {
                continue;
            }
            let came_from = self.links.of_wildcard(kind).map_or(CameFrom::OwnStream, |link| link.came_from());
            let given = Given { came_from, ingredients: self.ingredients.clone() };
            match translate::translate_any_from(&given, &raw.type_url, &raw.bytes) {
                Ok(Translated { resource, wanted }) => {
                    let name = resource.name().to_owned();
                    let held = Held {
                        version: raw.version,
                        bytes: raw.bytes,
                        resource: Arc::new(resource),
                        wanted: wanted.into(),
                        came_from,
                    };
                    self.accepted.insert((kind, name), held);
                }
                Err(errors) => {
                    tracing::warn!(name = raw.name, ?errors, "resource on disk is not understood any more")
                }
            }
        }
        // Which source brings what is known now: each is told what is held already.
        self.update_interest();
        let sources = self.sources();
        let (links, accepted) = (&mut self.links, &mut self.accepted);
        accepted.retain(|(kind, name), held| {
            let source = sources.get(&(*kind, name.clone())).cloned().unwrap_or_default();
            let link =
                if kind.is_wildcard() { links.of_wildcard(*kind) } else { links.of_kind(*kind, &source) };
            let Some(link) = link else { return false };
            link.session.assume_held(*kind, name, &held.version);
            true
        });
    }

    /// Where names come from, apart from those of the aggregated stream.
    fn sources(&self) -> BTreeMap<(Kind, String), Source> {
        let held = self.accepted.values().flat_map(|held| held.wanted.iter());
        let foreign = held.chain(&self.base_wanted).filter(|w| w.source != Source::Aggregated);
        foreign.map(|w| ((w.kind, w.name.clone()), w.source.clone())).collect()
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

    /// A file could not be read or understood: what it brought stays in force.
    pub fn note_failure(&mut self, kind: Kind, path: &str, reason: String) {
        self.status.of(kind).failure += 1;
        self.status.refused.insert(format!("file {path}"), reason);
    }

    /// A file was read and understood.
    pub fn note_read(&mut self, path: &str) {
        self.status.refused.remove(&format!("file {path}"));
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

    /// A response arrived on a stream. Returns what to send on it: its answer, and changed subscriptions.
    pub fn received(
        &mut self,
        from: LinkId,
        mut response: Response,
        raws: Vec<Raw>,
        now: Instant,
    ) -> Vec<Request> {
        let Some(link) = self.links.link(from) else { return Vec::new() };
        let came_from = link.came_from();
        if Kind::from_type_url(&response.type_url).is_some_and(Kind::is_ingredient) {
            return self.received_ingredients(from, response, raws, now);
        }
        let given = Given { came_from, ingredients: self.ingredients.clone() };
        let mut translated: Vec<(Raw, Result<Translated, Vec<ConfigError>>)> = raws
            .into_iter()
            .map(|raw| {
                let previous = previous_table(&self.accepted, &raw);
                let r = translate::translate_any_after(&given, &raw.type_url, &raw.bytes, previous);
                (raw, r)
            })
            .collect();
        for (raw, result) in &mut translated {
            if raw.name.is_empty() {
                raw.name =
                    result.as_ref().map_or_else(|_| name_of(&raw.bytes), |r| r.resource.name().to_owned());
            }
        }
        response.resources = translated.iter().map(|(r, _)| (r.name.clone(), r.version.clone())).collect();
        let Some((kind, wanted)) = link.session.received(&response) else { return Vec::new() };
        self.status.updates += 1;
        let removed = link.session.removals(kind, &response);
        let mut errors: Vec<ConfigError> = Vec::new();
        let mut candidates: BTreeMap<String, Held> = BTreeMap::new();
        let has_foreign = matches!(kind, Kind::Cluster | Kind::Listener) && !self.sources().is_empty();
        for (index, (raw, result)) in translated.into_iter().enumerate() {
            if !wanted.contains(&index) {
                continue;
            }
            let reachable = |found: Translated| {
                let mut wrong = self.links.unreachable(&found.resource, &found.wanted, &self.base);
                wrong.extend(self.conflicts(kind, &found, has_foreign));
                if wrong.is_empty() { Ok(found) } else { Err(wrong) }
            };
            match checked(kind, &raw, result).and_then(reachable) {
                Ok(Translated { resource, wanted }) => {
                    let held = Held {
                        version: raw.version,
                        bytes: raw.bytes,
                        resource: Arc::new(resource),
                        wanted: wanted.into(),
                        came_from,
                    };
                    candidates.insert(raw.name, held);
                }
                Err(list) => errors.extend(list),
            }
        }
        let accepted = self.accept(kind, candidates, &removed, &mut errors, now);
        self.note_refusals(kind, &accepted, &removed, &errors);
        let verdict = Verdict { accepted, errors: errors.iter().map(ToString::to_string).collect() };
        let Some(link) = self.links.link(from) else { return Vec::new() };
        let mut requests: Vec<Request> =
            link.session.answer(kind, &response, &removed, verdict).into_iter().collect();
        // Endpoints and secrets point to nothing.
        if !matches!(kind, Kind::Endpoints | Kind::Secret) {
            self.update_interest();
        }
        requests.extend(self.outgoing(from));
        requests
    }

    /// A name stands for one resource: two resources cannot take it from two places.
    fn conflicts(&self, kind: Kind, found: &Translated, has_foreign: bool) -> Vec<ConfigError> {
        if !has_foreign && found.wanted.iter().all(|w| w.source == Source::Aggregated) {
            return Vec::new();
        }
        let itself = (kind, found.resource.name().to_owned());
        let others = self.accepted.iter().filter(|(key, _)| **key != itself);
        let others = others.flat_map(|(_, held)| held.wanted.iter()).chain(&self.base_wanted);
        let mut errors = Vec::new();
        for other in others {
            let same = |w: &&Wanted| w.kind == other.kind && w.name == other.name && w.source != other.source;
            if let Some(w) = found.wanted.iter().find(same) {
                let at = format!("{}/{}", kind.word(), itself.1);
                let reason =
                    format!("takes {} `{}` from another source than others do", w.kind.word(), w.name);
                errors.push(ConfigError::new(at, "", reason));
            }
        }
        errors.dedup();
        errors
    }

    /// Takes the candidates in, without those that the compiler refuses. Returns what was taken.
    fn accept(
        &mut self,
        kind: Kind,
        mut candidates: BTreeMap<String, Held>,
        removed: &[String],
        errors: &mut Vec<ConfigError>,
        now: Instant,
    ) -> Vec<(String, String)> {
        if kind == Kind::Endpoints && removed.is_empty() && self.is_plain_endpoint_change(&candidates) {
            return self.accept_endpoints(candidates, errors);
        }
        let before = self.accepted.clone();
        loop {
            self.accepted = before.clone();
            for name in removed {
                self.accepted.remove(&(kind, name.clone()));
            }
            self.accepted.extend(candidates.iter().map(|(n, h)| ((kind, n.clone()), h.clone())));
            self.prune();
            let Err(reasons) = self.put_in_force(now) else { break };
            let prefix = format!("{}/", kind.word());
            let blamed: BTreeSet<String> = reasons
                .iter()
                .filter_map(|e| e.resource.strip_prefix(&prefix))
                .filter(|name| candidates.contains_key(*name))
                .map(str::to_owned)
                .collect();
            errors.extend(reasons);
            if candidates.is_empty() {
                self.accepted = before;
                return Vec::new();
            }
            if blamed.is_empty() {
                candidates.clear(); // Nobody in particular is to blame: nothing of this response is taken.
            }
            candidates.retain(|name, _| !blamed.contains(name));
        }
        self.note_change();
        self.flush();
        candidates.into_iter().map(|(name, held)| (name, held.version)).collect()
    }

    /// Endpoints of clusters that are in force already: nothing has to be compiled and nothing can be waiting for them.
    fn is_plain_endpoint_change(&self, candidates: &BTreeMap<String, Held>) -> bool {
        !self.warming.is_waiting()
            && candidates.keys().all(|n| self.accepted.contains_key(&(Kind::Endpoints, n.clone())))
    }

    fn accept_endpoints(
        &mut self,
        candidates: BTreeMap<String, Held>,
        errors: &mut Vec<ConfigError>,
    ) -> Vec<(String, String)> {
        let mut taken = Vec::with_capacity(candidates.len());
        for (name, held) in candidates {
            let Resource::Endpoints(endpoints) = held.resource.as_ref() else { continue };
            match self.sink.apply_endpoints(endpoints) {
                Err(reasons) => errors.extend(reasons),
                Ok(()) => {
                    taken.push((name.clone(), held.version.clone()));
                    self.warming.replace((Kind::Endpoints, name.clone()), held.resource.clone());
                    self.accepted.insert((Kind::Endpoints, name), held);
                }
            }
        }
        if !taken.is_empty() {
            self.note_change();
        }
        taken
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

    /// Subscriptions follow what the accepted resources point to.
    fn update_interest(&mut self) {
        let sources = self.sources();
        for (kind, names) in self.wanted() {
            let mut by_source: BTreeMap<Source, BTreeSet<String>> = BTreeMap::new();
            if sources.is_empty() {
                by_source.insert(Source::Aggregated, names);
            } else {
                for name in names {
                    let source = sources.get(&(kind, name.clone())).cloned().unwrap_or_default();
                    by_source.entry(source).or_default().insert(name);
                }
            }
            self.links.interest(kind, by_source);
        }
    }

    /// Names that the accepted and static resources point to and that the bootstrap file does not hold itself.
    fn wanted(&self) -> Vec<(Kind, BTreeSet<String>)> {
        let mut refs = Refs::default();
        for held in self.accepted.values() {
            match held.resource.as_ref() {
                Resource::Listener(v) => refs.add_listener(v),
                Resource::Cluster(v) => refs.add_cluster(v),
                // They name clusters, which are subscribed to as a whole.
                Resource::RouteConfig(_) | Resource::Endpoints(_) | Resource::Secret(_) => {}
            }
        }
        self.base.listeners.iter().for_each(|v| refs.add_listener(v));
        self.base.clusters.iter().for_each(|v| refs.add_cluster(v));
        let mut wanted: Vec<(Kind, BTreeSet<String>)> = refs.without(&self.base).by_kind().into();
        let all = || self.accepted.values().flat_map(|held| held.wanted.iter()).chain(&self.base_wanted);
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_ingredient()) {
            wanted.push((kind, all().filter(|w| w.kind == kind).map(|w| w.name.clone()).collect()));
        }
        wanted
    }

    /// Forgets resources that nothing points to any more.
    fn prune(&mut self) {
        for (kind, names) in self.wanted().into_iter().filter(|(kind, _)| !kind.is_ingredient()) {
            self.accepted.retain(|(k, name), _| *k != kind || names.contains(name));
        }
    }

    fn note_refusals(
        &mut self,
        kind: Kind,
        accepted: &[(String, String)],
        removed: &[String],
        errors: &[ConfigError],
    ) {
        let word = kind.word();
        for name in accepted.iter().map(|(n, _)| n).chain(removed) {
            self.status.refused.remove(&format!("{word}/{name}"));
        }
        for error in errors {
            tracing::warn!(
                resource = error.resource,
                path = error.path,
                reason = error.reason,
                "configuration refused"
            );
            self.status.refused.insert(error.resource.clone(), error.to_string());
        }
        self.status.rejected += u64::from(!errors.is_empty());
        let numbers = self.status.of(kind);
        numbers.success += u64::from(errors.is_empty());
        numbers.rejected += u64::from(!errors.is_empty());
    }

    fn note_change(&mut self) {
        self.changes += 1;
        self.unsaved = true;
    }

    /// What is accepted and not on disk yet, to be written where one may block; then [`Self::note_saved`].
    pub fn unsaved(&mut self) -> Option<Snapshot> {
        let file = self.last_good.as_ref()?;
        std::mem::take(&mut self.unsaved).then(|| file.snapshot(self.changes, &self.accepted))
    }

    /// What came of writing.
    pub fn note_saved(&mut self, written: io::Result<()>) {
        match written {
            Ok(()) => self.status.saves += 1,
            Err(error) => {
                self.status.save_failures += 1;
                self.unsaved = true;
                tracing::warn!(%error, "last good configuration cannot be written");
            }
        }
    }

    /// Writes what is not on disk yet. Blocks: before policy is acknowledged, and at the end.
    pub fn flush(&mut self) {
        if let Some(snapshot) = self.unsaved() {
            self.note_saved(snapshot.write());
        }
    }
}

/// The route table that a resource replaces, if it is one.
fn previous_table<'a>(accepted: &'a HeldMap, raw: &Raw) -> Option<Previous<'a>> {
    if Kind::from_type_url(&raw.type_url) != Some(Kind::RouteConfig) {
        return None;
    }
    let name = if raw.name.is_empty() { name_of(&raw.bytes) } else { raw.name.clone() };
    let held = accepted.get(&(Kind::RouteConfig, name))?;
    match held.resource.as_ref() {
        Resource::RouteConfig(table) => Some(Previous { bytes: &held.bytes, table }),
        _ => None,
    }
}

/// The resource must be of the kind and name that its envelope says.
fn checked(
    kind: Kind,
    raw: &Raw,
    result: Result<Translated, Vec<ConfigError>>,
) -> Result<Translated, Vec<ConfigError>> {
    let at = format!("{}/{}", kind.word(), raw.name);
    let found = result.map_err(|mut errors| {
        for error in &mut errors {
            if error.resource.is_empty() {
                error.resource.clone_from(&at);
            }
        }
        errors
    })?;
    if held::kind_of(&found.resource) != kind {
        return Err(vec![ConfigError::new(
            at,
            "",
            format!("is of type {} in a response of another type", raw.type_url),
        )]);
    }
    if found.resource.name() != raw.name {
        return Err(vec![ConfigError::new(
            at,
            "name",
            format!("is `{}`, but was sent under another name", found.resource.name()),
        )]);
    }
    Ok(found)
}

/// Name of a resource that could not be translated: field 1 of every kind is its name.
fn name_of(bytes: &[u8]) -> String {
    let [0x0a, len, rest @ ..] = bytes else { return String::new() };
    let name = rest.get(..usize::from(*len)).unwrap_or_default();
    if *len < 0x80 { String::from_utf8_lossy(name).into_owned() } else { String::new() }
}

#[cfg(test)]
mod tick_tests;
