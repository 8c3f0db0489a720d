//! Where a request stands: its route, and what the route says of filters.

use outrigger_traffic::filter::{Filter, RouteFilters};
use outrigger_traffic::route::{Action, Choice, Matched};
use std::rc::Rc;

use crate::exchange::{Exchange, Notes};
use crate::http::Serving;
use crate::http::view::{ClientView, HeadView};

/// A request's route. A filter may have the route looked for again, because it changed the request.
#[derive(Clone, Copy)]
pub(crate) struct Place<'s> {
    /// The configuration.
    pub(crate) serving: &'s Rc<Serving>,
    /// The route; filters also see requests that have none.
    pub(crate) matched: Option<Matched<'s>>,
    /// What the route says of filters.
    pub(crate) filters: Option<&'s RouteFilters>,
    /// The draw that chooses among weighted clusters.
    pub(crate) draw: u64,
}

impl<'s> Place<'s> {
    /// Finds the route.
    pub(crate) fn find(x: &Exchange, notes: &Notes, serving: &'s Rc<Serving>, draw: u64) -> Self {
        let low = (draw & u64::from(u32::MAX)) as u32;
        let view = ClientView {
            head: HeadView(&x.front.request),
            facts: &x.front.connection.facts,
            metadata: notes.metadata.as_deref(),
        };
        let matched = serving.table(&view.head).and_then(|table| table.find(&view, low));
        let filters = matched.map(|matched| matched.route.filters(&HeadView(&x.front.request), draw));
        Self { serving, matched, filters, draw }
    }

    /// What the filter at a place in the chain does.
    pub(crate) fn filter(&self, index: usize) -> Option<&'s Filter> {
        self.serving.filters().get(index).map(|filter| &filter.rules)
    }

    /// Name of the cluster that the request goes to, where it goes to one that exists.
    pub(crate) fn cluster(&self, x: &Exchange) -> Option<&'s str> {
        let Action::Forward(forward) = &self.matched?.route.action else { return None };
        let snapshot = &self.serving.live.snapshot;
        let choice: &Choice = &forward.choice;
        let (id, _) = choice.choose(
            snapshot,
            &HeadView(&x.front.request),
            forward.draw(&HeadView(&x.front.request), self.draw),
        )?;
        snapshot.cluster(id).map(|cluster| cluster.name())
    }
}
