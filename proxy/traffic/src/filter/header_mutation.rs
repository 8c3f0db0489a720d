//! Header edits as a filter: those of the filter, then those of the levels. Source: Envoy: header mutation filter.

use super::{Override, RouteFilter};
use crate::config;
use crate::route::Edits;

/// Compiled [`config::HeaderMutations`].
#[derive(Debug, Default)]
pub struct Mutations {
    /// Of the request.
    pub request: Edits,
    /// Of the response.
    pub response: Edits,
}

/// Compiled [`config::HeaderMutationFilter`].
#[derive(Debug)]
pub struct HeaderMutation {
    /// The filter's own.
    pub own: Mutations,
    most_specific_wins: bool,
}

impl Mutations {
    pub(crate) fn new(from: &config::HeaderMutations, refuse: &mut dyn FnMut(String, String)) -> Self {
        Self {
            request: Edits::of_mutations("request_mutations", &from.request, refuse),
            response: Edits::of_mutations("response_mutations", &from.response, refuse),
        }
    }
}

impl HeaderMutation {
    pub(crate) fn new(from: &config::HeaderMutationFilter, refuse: &mut dyn FnMut(String, String)) -> Self {
        let own = Mutations::new(&from.mutations, &mut |field, reason| {
            refuse(format!("mutations.{field}"), reason)
        });
        Self { own, most_specific_wins: from.most_specific_wins }
    }

    /// All edits of a request of a route, or of its response, in their order.
    pub fn edits<'a>(&'a self, own: Option<&'a Override>, response: bool) -> impl Iterator<Item = &'a Edits> {
        let side =
            move |mutations: &'a Mutations| if response { &mutations.response } else { &mutations.request };
        let levels = own.map(|own| &*own.levels).unwrap_or_default();
        let count = levels.len();
        let in_order = (0..count).filter_map(move |i| {
            let at = if self.most_specific_wins { count - 1 - i } else { i };
            match &**levels.get(at)? {
                RouteFilter::HeaderMutation(mutations) => Some(&**mutations),
                _ => None,
            }
        });
        std::iter::once(&self.own).chain(in_order).map(side).filter(|edits| !edits.is_empty())
    }
}
