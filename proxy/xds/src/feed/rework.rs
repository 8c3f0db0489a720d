//! When runtime values, settings of extensions or scopes change: everything that takes its meaning from them is
//! translated anew and applied as any other change is, or all stays as it was.

use super::held::HeldMap;
use super::links::LinkId;
use super::{Feed, Raw};
use crate::ads::Kind;
use crate::ads::kind::EVERY;
use crate::ads::session::{Request, Response, Verdict};
use crate::ingredients::{self, Ingredient, Ingredients};
use crate::translate::{self, Given, Translated};
use outrigger_traffic::config::ConfigError;
use std::sync::Arc;
use std::time::Instant;

impl Feed {
    /// Replaces what everything else takes its meaning from.
    ///
    /// # Errors
    /// Every reason; then nothing has changed.
    pub(super) fn rework(&mut self, with: Ingredients, now: Instant) -> Result<(), Vec<ConfigError>> {
        let with = Arc::new(with);
        let anew = self.anew(&with)?;
        let base = match &self.remake {
            Some(remake) => Some(remake(&with)?),
            None => None,
        };
        let accepted = std::mem::replace(&mut self.accepted, anew);
        let ingredients = std::mem::replace(&mut self.ingredients, with);
        let before = base.map(|(mut base, wanted)| {
            base.local_cluster.clone_from(&self.base.local_cluster);
            // Those of this host are not in the file.
            for secret in &self.base.secrets {
                if !base.secrets.iter().any(|one| one.name == secret.name) {
                    base.secrets.push(secret.clone());
                }
            }
            let wanted = std::mem::replace(&mut self.base_wanted, wanted);
            (std::mem::replace(&mut self.base, base), wanted)
        });
        let result = self.put_in_force(now);
        if result.is_err() {
            (self.accepted, self.ingredients) = (accepted, ingredients);
            if let Some((base, wanted)) = before {
                (self.base, self.base_wanted) = (base, wanted);
            }
        } else {
            self.update_interest();
        }
        result
    }

    /// Every resource that may take a meaning from there, with its new one.
    fn anew(&self, with: &Arc<Ingredients>) -> Result<HeldMap, Vec<ConfigError>> {
        let mut anew = self.accepted.clone();
        let mut errors = Vec::new();
        for ((kind, _), held) in &mut anew {
            if !matches!(kind, Kind::Cluster | Kind::Listener | Kind::RouteConfig) {
                continue;
            }
            let given = Given { came_from: held.came_from, ingredients: with.clone() };
            match translate::translate_any_from(&given, kind.type_url(), &held.bytes) {
                Ok(Translated { resource, wanted }) => {
                    // What means the same stays the same, and is not compiled again.
                    if *held.resource != resource {
                        held.resource = Arc::new(resource);
                    }
                    held.wanted = wanted.into();
                }
                Err(more) => errors.extend(more),
            }
        }
        if errors.is_empty() { Ok(anew) } else { Err(errors) }
    }

    /// A response with resources of that sort. They are taken all or none.
    pub(super) fn received_ingredients(
        &mut self,
        from: LinkId,
        mut response: Response,
        raws: Vec<Raw>,
        now: Instant,
    ) -> Vec<Request> {
        let Some(kind) = Kind::from_type_url(&response.type_url) else { return Vec::new() };
        let mut errors = Vec::new();
        let mut found: Vec<(Raw, Option<Ingredient>)> = Vec::new();
        for mut raw in raws {
            let one = match ingredients::read(kind, &raw.bytes) {
                _ if raw.type_url != kind.type_url() => {
                    let reason = format!("is of type {} in a response of another type", raw.type_url);
                    errors.push(ConfigError::new(format!("{}/{}", kind.word(), raw.name), "", reason));
                    None
                }
                Ok((name, one)) => {
                    if raw.name.is_empty() {
                        raw.name.clone_from(&name);
                    }
                    if raw.name != name {
                        let reason = format!("is `{name}`, but was sent under another name");
                        errors.push(ConfigError::new(
                            format!("{}/{}", kind.word(), raw.name),
                            "name",
                            reason,
                        ));
                    }
                    Some(one)
                }
                Err(more) => {
                    errors.extend(more.into_iter().map(|mut error| {
                        if error.resource.is_empty() {
                            error.resource = format!("{}/{}", kind.word(), raw.name);
                        }
                        error
                    }));
                    None
                }
            };
            found.push((raw, one));
        }
        response.resources = found.iter().map(|(raw, _)| (raw.name.clone(), raw.version.clone())).collect();
        let Some(link) = self.links.link(from) else { return Vec::new() };
        let Some((kind, wanted)) = link.session.received(&response) else { return Vec::new() };
        let removed = link.session.removals(kind, &response);
        self.status.updates += 1;
        let mut with = Ingredients::clone(&self.ingredients);
        with.scopes_known |= kind == Kind::Scope;
        for name in &removed {
            with.remove(kind, name);
        }
        let mut accepted = Vec::new();
        for (i, (raw, one)) in found.into_iter().enumerate() {
            if let (true, Some(one)) = (wanted.contains(&i), one) {
                with.put(&raw.name, one);
                accepted.push((raw.name, raw.version));
            }
        }
        if errors.is_empty()
            && let Err(more) = self.rework(with, now)
        {
            errors = more;
        }
        if !errors.is_empty() {
            accepted.clear();
        }
        let names = if errors.is_empty() { &removed[..] } else { &[] };
        self.note_refusals(kind, &accepted, names, &errors);
        let verdict = Verdict { accepted, errors: errors.iter().map(ToString::to_string).collect() };
        let Some(link) = self.links.link(from) else { return Vec::new() };
        let mut requests: Vec<Request> =
            link.session.answer(kind, &response, names, verdict).into_iter().collect();
        debug_assert!(!removed.iter().any(|name| name == EVERY), "no resource has this name");
        requests.extend(self.outgoing(from));
        requests
    }
}
