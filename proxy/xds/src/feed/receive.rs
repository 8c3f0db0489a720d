//! A response of a server: what of it is taken, and what is answered.

use super::held::{self, Held, HeldMap};
use super::links::LinkId;
use super::{Feed, Raw};
use crate::ads::Kind;
use crate::ads::session::{Request, Response, Verdict};
use crate::source::{Source, Wanted};
use crate::translate::{self, Given, Previous, Translated};
use outrigger_traffic::config::{ConfigError, Resource};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

impl Feed {
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
