//! Zone-aware routing: requests stay in the proxy's own locality as far as that is fair.
//!
//! Proxies are hosts as well: the local cluster says how many of them are where, and so how much of the requests begins
//! where. As long as a locality has at least the share of hosts that it has of proxies, its requests stay. Otherwise they
//! stay in proportion, and the rest goes to the localities that have hosts to spare, by how many these are.
//! Source: Envoy: zone aware routing.

use super::locality::{Building, Group, Tally};
use super::{PickContext, below};
use crate::cluster::Host;
use crate::config::{LocalCluster, Locality};
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Shares are counted in these parts.
const WHOLE: u64 = 10_000;

/// Where the proxy is, and how its fellows are spread. One for a snapshot and its successors; the local cluster writes it.
#[derive(Debug)]
pub(crate) struct Neighbourhood {
    pub(crate) cluster: Box<str>,
    locality: Option<Locality>,
    generation: AtomicU64,
    spread: ArcSwap<Spread>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Spread {
    /// Localities with hosts, healthy or not.
    localities: usize,
    /// The proxy's own is among them.
    is_here: bool,
    healthy: BTreeMap<Locality, u64>,
    tally: Tally,
}

impl Neighbourhood {
    pub(crate) fn new(local: &LocalCluster) -> Self {
        Self {
            cluster: local.name.as_str().into(),
            locality: local.locality.clone(),
            generation: AtomicU64::new(0),
            spread: ArcSwap::default(),
        }
    }

    pub(crate) fn is(&self, local: &LocalCluster) -> bool {
        *self.cluster == *local.name && self.locality == local.locality
    }

    /// Counts up with every change.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Takes in where the fellows are now.
    pub(crate) fn settle(&self, hosts: &[Arc<Host>]) {
        // Others than the first priority have no meaning here.
        let first: Vec<_> = hosts.iter().filter(|host| host.priority == 0).cloned().collect();
        let all = by_locality(&first);
        let spread = Spread {
            localities: all.len(),
            is_here: self.locality.as_ref().is_some_and(|here| all.contains_key(here)),
            healthy: all
                .iter()
                .map(|(place, hosts)| {
                    ((*place).clone(), hosts.iter().filter(|host| host.is_healthy()).count() as u64)
                })
                .collect(),
            tally: Tally::of(&first),
        };
        if **self.spread.load() != spread {
            self.spread.store(Arc::new(spread));
            self.generation.fetch_add(1, Relaxed);
        }
    }
}

fn by_locality(hosts: &[Arc<Host>]) -> BTreeMap<&Locality, Vec<&Arc<Host>>> {
    let mut all: BTreeMap<&Locality, Vec<&Arc<Host>>> = BTreeMap::new();
    for host in hosts {
        all.entry(&host.locality).or_default().push(host);
    }
    all
}

/// How often the structures of a cluster were made, and why they were of no use.
#[derive(Debug, Default)]
pub struct ZoneCounts {
    /// They were made (`lb_recalculate_zone_structures`).
    pub made: AtomicU64,
    /// Too few hosts (`lb_zone_cluster_too_small`).
    pub too_small: AtomicU64,
    /// The local cluster has no host where the proxy is, or too few healthy ones (`lb_local_cluster_not_ok`).
    pub local_not_ok: AtomicU64,
}

/// How a locality was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZoneFound {
    /// Localities had no say.
    #[default]
    None,
    /// Here, as all requests.
    Direct,
    /// Here, as a part of the requests.
    Sampled,
    /// Elsewhere.
    Elsewhere,
    /// Anywhere, for no locality has hosts to spare.
    NoCapacity,
}

/// Which hosts a request goes to.
#[derive(Debug)]
pub(super) enum Choice<'a> {
    /// To those of all localities.
    Whole,
    /// To those of one.
    In(&'a Group),
    /// To none.
    Nowhere,
}

/// The localities of a priority, the proxy's own first where it has hosts.
#[derive(Debug)]
pub(super) struct Zones {
    pub(super) generation: u64,
    routing: Routing,
    /// Too few of the fellows are healthy to go by them.
    home_panics: bool,
    fails_in_panic: bool,
    routing_enabled: u32,
    counts: Arc<ZoneCounts>,
    healthy: Box<[Group]>,
    degraded: Box<[Group]>,
}

/// What stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Routing {
    /// Localities have no say.
    Off,
    /// Everything.
    Direct,
    /// A part of [`WHOLE`]; the rest goes by these running sums.
    Residual { here: u64, spare: Box<[u64]> },
}

impl Zones {
    pub(super) fn new(building: &Building<'_>, home: &Neighbourhood, hosts: &[Arc<Host>]) -> Self {
        let rules = &building.basis.config.zone_aware;
        let counts = &building.basis.zones;
        let generation = home.generation();
        let spread = home.spread.load();
        counts.made.fetch_add(1, Relaxed);
        let mut places: Vec<(&Locality, Vec<&Arc<Host>>)> = by_locality(hosts).into_iter().collect();
        let is_here = |place: &Locality| home.locality.as_ref() == Some(place);
        // Stable: the others stay in order.
        places.sort_by_key(|(place, _)| !is_here(place));
        let has_here = places.first().is_some_and(|(place, _)| is_here(place));
        let groups = |keep: fn(&Host) -> bool| -> Box<[Group]> {
            let kept =
                |hosts: &Vec<&Arc<Host>>| hosts.iter().filter(|h| keep(h)).map(|h| (*h).clone()).collect();
            places.iter().map(|(_, hosts)| building.group(kept(hosts))).collect()
        };
        let mut zones = Self {
            generation,
            routing: Routing::Off,
            home_panics: spread.tally.is_few(building.basis.config.healthy_panic_threshold.millionths()),
            fails_in_panic: rules.fail_traffic_on_panic,
            routing_enabled: rules.routing_enabled,
            counts: counts.clone(),
            healthy: Box::default(),
            degraded: Box::default(),
        };
        let force = rules.force_locality_direct_routing;
        // Before the local cluster was heard of nothing is known.
        if generation == 0 || places.len() < 2 || (spread.localities < 2 && !force) {
            return zones;
        }
        if !spread.is_here {
            counts.local_not_ok.fetch_add(1, Relaxed);
            return zones;
        }
        let healthy = groups(Host::is_healthy);
        let total: u64 = healthy.iter().map(|group| group.len() as u64).sum();
        if total < rules.min_cluster_size {
            counts.too_small.fetch_add(1, Relaxed);
            return zones;
        }
        let fellows: u64 = spread.healthy.values().sum();
        let shares = places.iter().zip(&healthy).map(|((place, _), group)| {
            if group.len() == 0 {
                return (0, 0);
            }
            let near = spread.healthy.get(place).copied().unwrap_or(0);
            let share = |part: u64, whole: u64| (WHOLE * part).checked_div(whole).unwrap_or(0);
            (share(near, fellows), share(group.len() as u64, total))
        });
        let shares: Vec<(u64, u64)> = shares.collect();
        zones.routing = routing(&shares, has_here, force);
        zones.degraded = groups(Host::is_degraded);
        zones.healthy = healthy;
        zones
    }

    /// Draws what a request does.
    pub(super) fn choose(&self, degraded: bool, context: &mut PickContext<'_>) -> Choice<'_> {
        if self.routing == Routing::Off {
            return Choice::Whole;
        }
        if self.routing_enabled < 100 && below((context.draw)(), 100) as u32 >= self.routing_enabled {
            return Choice::Whole;
        }
        if self.home_panics {
            self.counts.local_not_ok.fetch_add(1, Relaxed);
            return if self.fails_in_panic { Choice::Nowhere } else { Choice::Whole };
        }
        let (at, found) = self.routing.locality(context.draw, self.healthy.len());
        context.zone = found;
        let groups = if degraded { &self.degraded } else { &self.healthy };
        groups.get(at).map_or(Choice::Nowhere, Choice::In)
    }
}

impl Routing {
    fn locality(&self, draw: &mut dyn FnMut() -> u64, count: usize) -> (usize, ZoneFound) {
        match self {
            Self::Off | Self::Direct => (0, ZoneFound::Direct),
            Self::Residual { here, spare } => {
                if *here > 0 && (below(draw(), WHOLE as usize) as u64) < *here {
                    return (0, ZoneFound::Sampled);
                }
                match spare.last().copied().unwrap_or(0) {
                    0 => (below(draw(), count), ZoneFound::NoCapacity),
                    total => {
                        let at = below(draw(), usize::try_from(total).unwrap_or(usize::MAX)) as u64;
                        (spare.partition_point(|sum| *sum <= at), ZoneFound::Elsewhere)
                    }
                }
            }
        }
    }
}

/// What stays, by the shares of each locality: of the fellows, and of the hosts.
pub(super) fn routing(shares: &[(u64, u64)], has_here: bool, force: bool) -> Routing {
    let here = shares.first().copied().filter(|_| has_here);
    if let Some((fellows, hosts)) = here
        && hosts > 0
        && (force || hosts >= fellows)
    {
        return Routing::Direct;
    }
    let stays = here.and_then(|(fellows, hosts)| (hosts * WHOLE).checked_div(fellows)).unwrap_or(0);
    let mut sum = 0;
    let spare = shares.iter().enumerate().map(|(i, (fellows, hosts))| {
        if !(i == 0 && has_here) {
            sum += hosts.saturating_sub(*fellows);
        }
        sum
    });
    Routing::Residual { here: stays, spare: spare.collect() }
}
