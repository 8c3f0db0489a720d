//! Priorities and localities: where traffic goes when hosts fail.
//!
//! Each priority is credited with more health than it has (overprovisioning, 140 %), so that a few lost hosts do not
//! move traffic; what a priority lacks goes to the next one. Where too few hosts of a priority are healthy and no other
//! priority makes up for it, all of its hosts are used (panic): overloading the few would lose them as well.
//! Source: Envoy: load balancing, "priority levels", "degraded endpoints", "panic threshold", "locality weighted".

use super::hashing::shares;
use super::weights::Weights;
use super::zone::{Choice, Neighbourhood, ZoneCounts, Zones};
use super::{BalancerFactory, PickContext, PickError, Picker, TableFigures, below, subset};
use crate::cluster::Host;
use crate::config::{self, LocalityLb};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

/// Percent of health credited when endpoints do not say: Envoy's default.
const OVERPROVISIONING_DEFAULT: u32 = 140;

/// The hosts of a cluster and everything precomputed about them. Immutable.
#[derive(Debug)]
pub struct HostSet {
    hosts: Box<[Arc<Host>]>,
    priorities: Box<[Priority]>,
    /// Percent of traffic by priority; sums to 100 unless there is no host at all.
    healthy_load: SmallVec<[u32; 4]>,
    degraded_load: SmallVec<[u32; 4]>,
    /// Hosts are picked by the request's hash, priorities too.
    by_hash: bool,
    subsets: Option<Box<subset::Table>>,
    /// Made by the first request that wants a host by its address.
    by_address: OnceLock<HashMap<SocketAddr, Arc<Host>, foldhash::fast::RandomState>>,
}

/// What all host sets of a cluster are made by.
#[derive(Clone, Debug)]
pub(crate) struct Basis {
    pub(crate) config: Arc<config::Cluster>,
    pub(crate) policy: Arc<dyn BalancerFactory>,
    /// Where this proxy and its fellows are.
    pub(crate) home: Option<Arc<Neighbourhood>>,
    /// What became of that.
    pub(crate) zones: Arc<ZoneCounts>,
}

#[derive(Debug)]
struct Priority {
    panic: bool,
    /// In panic there is no host rather than any.
    fails_in_panic: bool,
    zones: Option<Zones>,
    healthy: Arc<Tier>,
    degraded: Arc<Tier>,
    all: Arc<Tier>,
}

/// Hosts among which a policy picks.
#[derive(Debug)]
pub(super) struct Tier {
    whole: Group,
    /// Weighted localities: by effective weight.
    localities: Option<(Weights, Box<[Group]>)>,
}

#[derive(Debug)]
pub(super) struct Group {
    hosts: Box<[Arc<Host>]>,
    picker: Arc<dyn Picker>,
}

/// What is needed to build tiers.
pub(super) struct Building<'a> {
    pub(super) basis: &'a Basis,
    config: &'a config::Cluster,
    endpoints: &'a config::Endpoints,
    overprovisioning: u64,
}

impl HostSet {
    /// Precomputes everything from the present health of `hosts`, which stand in the order of `endpoints`.
    pub(crate) fn new(basis: &Basis, endpoints: &config::Endpoints, hosts: Vec<Arc<Host>>) -> Self {
        let config = &*basis.config;
        let overprovisioning = endpoints.overprovisioning_factor.unwrap_or(OVERPROVISIONING_DEFAULT).into();
        let building = Building { basis, config, endpoints, overprovisioning };
        let count = hosts.iter().map(|h| h.priority as usize + 1).max().unwrap_or(0);
        let mut groups: Vec<Vec<Arc<Host>>> = vec![Vec::new(); count];
        for host in &hosts {
            if let Some(group) = groups.get_mut(host.priority as usize) {
                group.push(host.clone());
            }
        }
        let tallies: Vec<Tally> = groups.iter().map(|g| Tally::of(g)).collect();
        let plan = LoadPlan::new(&tallies, overprovisioning, config.healthy_panic_threshold.millionths());
        let priorities = groups
            .iter()
            .enumerate()
            .map(|(i, g)| building.priority(i as u32, g, plan.panic.get(i) == Some(&true)));
        let subsets = config
            .subsets
            .as_ref()
            .map(|subsets| Box::new(subset::Table::new(basis, subsets, endpoints, &hosts)));
        Self {
            subsets,
            priorities: priorities.collect(),
            hosts: hosts.into(),
            healthy_load: plan.healthy,
            degraded_load: plan.degraded,
            by_hash: config.lb_policy.is_hashing(),
            by_address: OnceLock::new(),
        }
    }

    /// The same hosts, judged anew.
    pub(crate) fn refreshed(&self, basis: &Basis, endpoints: &config::Endpoints) -> Self {
        Self::new(basis, endpoints, self.hosts.to_vec())
    }

    /// Whether the proxy's fellows have moved since this was made.
    pub(crate) fn is_outdated(&self, home: &Neighbourhood) -> bool {
        let zones = self.priorities.first().and_then(|first| first.zones.as_ref());
        zones.is_some_and(|zones| zones.generation != home.generation())
    }

    /// All hosts, in the order of the endpoints.
    pub fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    /// Whether a priority uses all of its hosts because too few are healthy (`lb_healthy_panic`).
    pub fn is_panicking(&self) -> bool {
        self.priorities.iter().any(|p| p.panic)
    }

    /// Hosts that may be picked in ordinary times (`membership_healthy`).
    pub fn healthy_count(&self) -> usize {
        self.hosts.iter().filter(|h| h.is_healthy()).count()
    }

    /// Hosts of the second choice (`membership_degraded`).
    pub fn degraded_count(&self) -> usize {
        self.hosts.iter().filter(|h| h.is_degraded()).count()
    }

    /// Hosts that are left out of account (`membership_excluded`).
    pub fn excluded_count(&self) -> usize {
        self.hosts.iter().filter(|h| h.is_excluded()).count()
    }

    /// The host at an address. Cost: a look into a table, which the first call makes, in O(hosts).
    pub fn host_at(&self, address: SocketAddr) -> Option<&Arc<Host>> {
        let table = self
            .by_address
            .get_or_init(|| self.hosts.iter().map(|host| (host.address, host.clone())).collect());
        table.get(&address)
    }

    /// Subsets that have hosts (`lb_subsets_active`).
    pub fn subset_count(&self) -> usize {
        self.subsets.as_ref().map_or(0, |subsets| subsets.count())
    }

    /// The table of healthy hosts of the first priority, where the policy has one.
    pub fn figures(&self) -> Option<TableFigures> {
        self.priorities.first()?.healthy.whole.picker.figures()
    }

    /// Picks a host.
    ///
    /// # Errors
    /// There is none, or none that may be used.
    pub fn pick(&self, context: &mut PickContext<'_>) -> Result<Arc<Host>, PickError> {
        match &self.subsets {
            None => self.pick_here(context),
            Some(subsets) => subsets.pick(self, context),
        }
    }

    /// The same without regard to subsets.
    pub(super) fn pick_here(&self, context: &mut PickContext<'_>) -> Result<Arc<Host>, PickError> {
        if self.hosts.is_empty() {
            return Err(PickError::NoHosts);
        }
        let mut last = None;
        for attempt in 0..context.attempts_max.max(1) {
            context.attempt = attempt;
            let host = self.pick_once(context).ok_or(PickError::NoHealthy)?;
            if !context.avoid.contains(&host.id) {
                return Ok(host.clone());
            }
            last = Some(host);
        }
        let last = last.ok_or(PickError::NoHealthy)?;
        Ok(self.another(last, context).unwrap_or(last).clone())
    }

    /// A healthy host of the same priority that is not to be avoided, wherever the policy would have gone. Least request is
    /// drawn to the host that fails fastest, because that one has the fewest requests: without this, retries would meet it
    /// again and again. Only retries come here; costs a look at every host at most.
    fn another(&self, last: &Arc<Host>, context: &mut PickContext<'_>) -> Option<&Arc<Host>> {
        let start = below((context.draw)(), self.hosts.len());
        let (before, after) = self.hosts.split_at_checked(start)?;
        after.iter().chain(before).find(|host| {
            host.priority == last.priority && host.is_healthy() && !context.avoid.contains(&host.id)
        })
    }

    fn pick_once(&self, context: &mut PickContext<'_>) -> Option<&Arc<Host>> {
        let (priority, degraded) = match &*self.priorities {
            // One priority is the rule: everything goes there, and only health must be looked at.
            [only] if self.degraded_load.first() == Some(&0) => (only, false),
            _ => {
                let percent = match context.hash {
                    // A request stays with its priority as with its host.
                    Some(hash) if self.by_hash => (hash % 100) as u32,
                    _ => below((context.draw)(), 100) as u32,
                };
                self.priority_of(percent)?
            }
        };
        let tier = match (priority.panic, degraded) {
            (true, _) => {
                context.panicked = true;
                if priority.fails_in_panic {
                    return None;
                }
                return priority.all.whole.pick(context);
            }
            (false, false) => &priority.healthy,
            (false, true) => &priority.degraded,
        };
        if let Some(zones) = &priority.zones
            && tier.localities.is_none()
        {
            return match zones.choose(degraded, context) {
                Choice::Whole => tier.whole.pick(context),
                Choice::In(group) => group.pick(context),
                Choice::Nowhere => None,
            };
        }
        tier.pick(context)
    }

    fn priority_of(&self, mut percent: u32) -> Option<(&Priority, bool)> {
        for (degraded, loads) in [(false, &self.healthy_load), (true, &self.degraded_load)] {
            for (priority, load) in self.priorities.iter().zip(loads) {
                match percent.checked_sub(*load) {
                    None => return Some((priority, degraded)),
                    Some(rest) => percent = rest,
                }
            }
        }
        None
    }
}

impl Tier {
    fn pick(&self, context: &mut PickContext<'_>) -> Option<&Arc<Host>> {
        if let Some((weights, groups)) = &self.localities
            && let Some(at) = weights.position((context.draw)())
            && let Some(group) = groups.get(at)
        {
            return group.pick(context);
        }
        self.whole.pick(context)
    }
}

impl Group {
    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }

    fn pick(&self, context: &mut PickContext<'_>) -> Option<&Arc<Host>> {
        let at = self.picker.pick(&self.hosts, context)?;
        self.hosts.get(at)
    }
}

impl Building<'_> {
    fn priority(&self, number: u32, all: &[Arc<Host>], panic: bool) -> Priority {
        let of =
            |keep: fn(&Host) -> bool| -> Vec<Arc<Host>> { all.iter().filter(|h| keep(h)).cloned().collect() };
        let healthy = Arc::new(self.tier(number, all, of(Host::is_healthy), Host::is_healthy, false));
        let degraded = Arc::new(self.tier(number, all, of(Host::is_degraded), Host::is_degraded, false));
        // All hosts are needed in panic alone.
        let whole = if panic {
            Arc::new(self.tier(number, all, all.to_vec(), |_| true, true))
        } else {
            healthy.clone()
        };
        // Source: Envoy: zone aware routing, "only for the first priority".
        let zones = match &self.basis.home {
            Some(home) if number == 0 && !self.config.lb_policy.is_hashing() => {
                Some(Zones::new(self, home, all))
            }
            _ => None,
        };
        let fails_in_panic = self.config.zone_aware.fail_traffic_on_panic;
        Priority { panic, fails_in_panic, zones, healthy, degraded, all: whole }
    }

    fn tier(
        &self,
        number: u32,
        all: &[Arc<Host>],
        hosts: Vec<Arc<Host>>,
        keep: fn(&Host) -> bool,
        is_panic: bool,
    ) -> Tier {
        let weighted = self.config.locality_lb == LocalityLb::Weighted;
        if self.config.lb_policy.is_hashing() {
            return Tier { whole: self.hashed(number, hosts, weighted), localities: None };
        }
        let localities = if weighted && !is_panic { self.localities(number, all, keep) } else { None };
        Tier { whole: self.group(hosts), localities }
    }

    /// One table of all localities. Their health has no say: a table that changed with it would move requests of hosts that
    /// did not change.
    fn hashed(&self, number: u32, hosts: Vec<Arc<Host>>, weighted: bool) -> Group {
        let places: Vec<(u64, Vec<usize>)> = self
            .endpoints
            .localities
            .iter()
            .filter(|place| weighted && place.priority == number && place.weight.unwrap_or(0) > 0)
            .map(|place| {
                let here = |at: &usize| hosts.get(*at).is_some_and(|host| *host.locality == place.locality);
                (place.weight.unwrap_or(0).into(), (0..hosts.len()).filter(here).collect())
            })
            .collect();
        let places = Some(places).filter(|places| !places.is_empty());
        let shares = shares(&hosts, places.as_deref());
        let picker = self.basis.policy.build_shared(&hosts, shares);
        Group { hosts: hosts.into(), picker }
    }

    /// Localities by weight × min(1, overprovisioning × share of usable hosts); `None` where none has weight.
    fn localities(
        &self,
        number: u32,
        all: &[Arc<Host>],
        keep: fn(&Host) -> bool,
    ) -> Option<(Weights, Box<[Group]>)> {
        let mut weights = Vec::new();
        let mut groups = Vec::new();
        for place in self.endpoints.localities.iter().filter(|l| l.priority == number) {
            let of_place = || all.iter().filter(|h| *h.locality == place.locality);
            let total = of_place().count() as u64;
            let usable: Vec<_> = of_place().filter(|h| keep(h)).cloned().collect();
            let weight = u64::from(place.weight.unwrap_or(0));
            if weight == 0 || usable.is_empty() {
                continue;
            }
            let percent = (self.overprovisioning * usable.len() as u64 / total.max(1)).min(100);
            weights.push(weight * percent.max(1));
            groups.push(self.group(usable));
        }
        if groups.is_empty() { None } else { Some((Weights::sums(weights.into_iter()), groups.into())) }
    }

    pub(super) fn group(&self, hosts: Vec<Arc<Host>>) -> Group {
        let picker = self.basis.policy.build(&hosts);
        Group { hosts: hosts.into(), picker }
    }
}

/// How many hosts of a priority are what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) hosts: u64,
    pub(super) healthy: u64,
    pub(super) degraded: u64,
}

impl Tally {
    pub(super) fn of(hosts: &[Arc<Host>]) -> Self {
        Self {
            hosts: hosts.iter().filter(|h| !h.is_excluded()).count() as u64,
            healthy: hosts.iter().filter(|h| h.is_healthy()).count() as u64,
            degraded: hosts.iter().filter(|h| h.is_degraded()).count() as u64,
        }
    }

    /// Whether fewer hosts can be used than the threshold wants.
    pub(super) const fn is_few(&self, panic_millionths: u32) -> bool {
        self.hosts > 0 && (self.healthy + self.degraded) * 1_000_000 < panic_millionths as u64 * self.hosts
    }
}

/// How traffic is shared among priorities.
#[derive(Debug, Default)]
pub(super) struct LoadPlan {
    pub(super) healthy: SmallVec<[u32; 4]>,
    pub(super) degraded: SmallVec<[u32; 4]>,
    pub(super) panic: SmallVec<[bool; 4]>,
}

impl LoadPlan {
    pub(super) fn new(tallies: &[Tally], overprovisioning: u64, panic_millionths: u32) -> Self {
        let credit =
            |count: u64, hosts: u64| (overprovisioning * count).checked_div(hosts).unwrap_or(0).min(100);
        let healthy: SmallVec<[u64; 4]> = tallies.iter().map(|t| credit(t.healthy, t.hosts)).collect();
        let degraded: SmallVec<[u64; 4]> = tallies.iter().map(|t| credit(t.degraded, t.hosts)).collect();
        let total = (healthy.iter().sum::<u64>() + degraded.iter().sum::<u64>()).min(100);
        // Whoever has enough health in all priorities together never panics.
        let panic: SmallVec<[bool; 4]> =
            tallies.iter().map(|t| total < 100 && t.is_few(panic_millionths)).collect();
        let with_hosts = tallies.iter().zip(&panic).filter(|(t, _)| t.hosts > 0);
        let all_panic = with_hosts.clone().count() > 0 && with_hosts.clone().all(|(_, p)| *p);
        if all_panic {
            return Self { healthy: by_hosts(tallies), degraded: tallies.iter().map(|_| 0).collect(), panic };
        }
        if total == 0 {
            // Panic is switched off and nobody is healthy: everything goes to the first priority and fails there.
            let first = tallies.iter().position(|t| t.hosts > 0).unwrap_or(0);
            let healthy = (0..tallies.len()).map(|i| if i == first { 100 } else { 0 }).collect();
            return Self { healthy, degraded: tallies.iter().map(|_| 0).collect(), panic };
        }
        let mut left = 100;
        let mut share = |credits: &[u64]| -> SmallVec<[u32; 4]> {
            credits
                .iter()
                .map(|c| {
                    let load = (c * 100 / total).min(left);
                    left -= load;
                    load as u32
                })
                .collect()
        };
        let (mut healthy, mut degraded) = (share(&healthy), share(&degraded));
        // What rounding left over goes to the first that takes traffic.
        let first = healthy.iter_mut().chain(degraded.iter_mut()).find(|l| **l > 0);
        if let Some(first) = first {
            *first += left as u32;
        }
        Self { healthy, degraded, panic }
    }
}

/// When every priority panics, traffic follows the number of hosts.
fn by_hosts(tallies: &[Tally]) -> SmallVec<[u32; 4]> {
    let total = tallies.iter().map(|t| t.hosts).sum::<u64>().max(1);
    let mut loads: SmallVec<[u32; 4]> = tallies.iter().map(|t| (t.hosts * 100 / total) as u32).collect();
    let left = 100 - loads.iter().sum::<u32>().min(100);
    if let Some(first) = loads.iter_mut().find(|l| **l > 0) {
        *first += left;
    }
    loads
}
