//! How a host is picked: the older `lb_policy`, or the list in `load_balancing_policy`.

use crate::translate::endpoint::health_status;
use crate::translate::value::{percent, positive};
use crate::translate::{At, subset};
use common::{LocalityLbConfig, locality_lb_config::LocalityConfigSpecifier};
use outrigger_api::envoy::config::cluster::v3 as proto;
use outrigger_api::envoy::config::core::v3::RuntimeDouble;
use outrigger_api::envoy::extensions::load_balancing_policies::common::v3 as common;
use outrigger_api::envoy::extensions::load_balancing_policies::least_request::v3 as least;
use outrigger_api::envoy::extensions::load_balancing_policies::maglev::v3::Maglev as MaglevExtension;
use outrigger_api::envoy::extensions::load_balancing_policies::random::v3::Random;
use outrigger_api::envoy::extensions::load_balancing_policies::ring_hash::v3 as ring;
use outrigger_api::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use outrigger_api::envoy::extensions::load_balancing_policies::subset::v3::Subset;
use outrigger_api::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;
use outrigger_api::envoy::r#type::v3::Percent;
use outrigger_traffic::config::{
    Cluster, Fraction, Hashing, LbPolicy, LeastRequest, LocalityLb, Maglev, RingFunction, RingHash,
    SlowStart, Subsets, ZoneAware,
};
use pc::common_lb_config::LocalityConfigSpecifier as LocalityConfig;
use prost_types::Duration;
use proto::cluster as pc;

/// Deepest nesting of policies: weighted localities around a policy of hosts.
const NESTING_MAX: usize = 4;

/// What a policy of the list says.
struct Chosen {
    policy: LbPolicy,
    locality: LocalityLb,
    zone_aware: ZoneAware,
    slow_start: Option<SlowStart>,
    subsets: Option<Subsets>,
}

/// Sets policy, locality rule and panic threshold of a cluster.
pub(super) fn balancing(message: &proto::Cluster, cluster: &mut Cluster, at: &At<'_>) {
    let mut hashing = Hashing::default();
    if let Some(common) = &message.common_lb_config {
        let at = at.field("common_lb_config");
        if let Some(threshold) = common.healthy_panic_threshold {
            let given = percent(threshold, &at.field("healthy_panic_threshold"));
            cluster.healthy_panic_threshold = at.runtime().share("upstream.healthy_panic_threshold", given);
        }
        match &common.locality_config_specifier {
            None => {}
            Some(LocalityConfig::LocalityWeightedLbConfig(_)) => cluster.locality_lb = LocalityLb::Weighted,
            Some(LocalityConfig::ZoneAwareLbConfig(config)) => {
                let at = at.field("zone_aware_lb_config");
                if message.load_balancing_policy.is_some() {
                    at.refuse("has no effect together with `load_balancing_policy`");
                }
                let by_hash = [pc::LbPolicy::RingHash, pc::LbPolicy::Maglev, pc::LbPolicy::ClusterProvided];
                if by_hash.iter().any(|policy| message.lb_policy == *policy as i32) {
                    at.refuse("has no effect with this `lb_policy`");
                }
                cluster.zone_aware = zone_aware(
                    config.routing_enabled,
                    config.min_cluster_size,
                    config.fail_traffic_on_panic,
                    false,
                    &at,
                );
            }
        }
        if let Some(set) = &common.override_host_status {
            let at = at.field("override_host_status");
            let statuses = set.statuses.iter().enumerate();
            cluster.override_host_status =
                statuses.map(|(i, status)| health_status(*status, &at.item("statuses", i))).collect();
        }
        if common.ignore_new_hosts_until_first_hc && message.health_checks.is_empty() {
            at.field("ignore_new_hosts_until_first_hc").refuse("has no effect without `health_checks`");
        }
        cluster.ignore_new_hosts_until_first_hc = common.ignore_new_hosts_until_first_hc;
        if let Some(config) = &common.consistent_hashing_lb_config {
            let at = at.field("consistent_hashing_lb_config");
            let by_hash = [pc::LbPolicy::RingHash as i32, pc::LbPolicy::Maglev as i32];
            if message.load_balancing_policy.is_some() || !by_hash.contains(&message.lb_policy) {
                at.refuse("has no effect without `lb_policy: RING_HASH` or `MAGLEV`");
            }
            hashing = both(config.use_hostname_for_hashing, config.hash_balance_factor, &at);
        }
    }
    cluster.subsets = message.lb_subset_config.as_ref().map(|config| {
        let at = at.field("lb_subset_config");
        if message.load_balancing_policy.is_some() {
            at.refuse("has no effect together with `load_balancing_policy`");
        }
        if message.lb_policy == pc::LbPolicy::ClusterProvided as i32 {
            at.refuse("destinations are not divided");
        }
        subset::older(config, &at)
    });
    if let Some(policy) = &message.load_balancing_policy {
        if let Some(config) = &message.lb_config
            && !matches!(config, pc::LbConfig::OriginalDstLbConfig(_))
        {
            at.field(name_of(config).0).refuse("has no effect together with `load_balancing_policy`");
        }
        let at = at.field("load_balancing_policy");
        if let Some(chosen) = extension(policy, 0, &at) {
            cluster.lb_policy = chosen.policy;
            cluster.slow_start = chosen.slow_start;
            cluster.subsets = chosen.subsets;
            if chosen.locality == LocalityLb::Weighted {
                cluster.locality_lb = chosen.locality;
            }
            cluster.zone_aware = chosen.zone_aware;
        }
        return;
    }
    cluster.lb_policy = older(message, hashing, &mut cluster.slow_start, at);
}

/// `lb_policy` with its settings.
fn older(
    message: &proto::Cluster,
    hashing: Hashing,
    slow_start: &mut Option<SlowStart>,
    at: &At<'_>,
) -> LbPolicy {
    let given = pc::LbPolicy::try_from(message.lb_policy);
    let settings = message.lb_config.as_ref().filter(|config| {
        let (name, wanted) = name_of(config);
        // What belongs to destinations is read where these are.
        let fits = wanted.is_none_or(|wanted| given == Ok(wanted));
        if let (false, Some(wanted)) = (fits, wanted) {
            at.field(name).refuse(format!("has no effect without `lb_policy: {}`", wanted.as_str_name()));
        }
        fits
    });
    match given {
        // Destinations are not balanced; that the two come together only is said where the destinations are.
        Ok(pc::LbPolicy::ClusterProvided) => LbPolicy::RoundRobin,
        Ok(pc::LbPolicy::RoundRobin) => {
            if let Some(pc::LbConfig::RoundRobinLbConfig(config)) = settings {
                *slow_start =
                    older_slow(config.slow_start_config.as_ref(), &at.field("round_robin_lb_config"));
            }
            LbPolicy::RoundRobin
        }
        Ok(pc::LbPolicy::Random) => LbPolicy::Random,
        Ok(pc::LbPolicy::LeastRequest) => {
            let mut policy = LeastRequest::default();
            if let Some(pc::LbConfig::LeastRequestLbConfig(config)) = settings {
                let at = at.field("least_request_lb_config");
                *slow_start = older_slow(config.slow_start_config.as_ref(), &at);
                policy.choice_count = choice_count(config.choice_count, &at);
                policy.active_request_bias = bias(config.active_request_bias.as_ref(), &at);
            }
            LbPolicy::LeastRequest(policy)
        }
        Ok(pc::LbPolicy::RingHash) => {
            let mut policy = RingHash { hashing, ..RingHash::default() };
            if let Some(pc::LbConfig::RingHashLbConfig(config)) = settings {
                let at = at.field("ring_hash_lb_config");
                sizes(&mut policy, config.minimum_ring_size, config.maximum_ring_size, &at);
                policy.function = match pc::ring_hash_lb_config::HashFunction::try_from(config.hash_function)
                {
                    Ok(pc::ring_hash_lb_config::HashFunction::XxHash) => RingFunction::XxHash,
                    Ok(pc::ring_hash_lb_config::HashFunction::MurmurHash2) => RingFunction::Murmur2,
                    Err(_) => unknown_function(&at),
                };
            }
            LbPolicy::RingHash(policy)
        }
        Ok(pc::LbPolicy::Maglev) => {
            let mut policy = Maglev { hashing, ..Maglev::default() };
            if let Some(pc::LbConfig::MaglevLbConfig(config)) = settings {
                policy.table_size = config.table_size.unwrap_or(policy.table_size);
            }
            LbPolicy::Maglev(policy)
        }
        Ok(pc::LbPolicy::LoadBalancingPolicyConfig) => {
            at.field("load_balancing_policy").refuse("is required with LOAD_BALANCING_POLICY_CONFIG");
            LbPolicy::RoundRobin
        }
        Err(_) => {
            at.field("lb_policy").refuse("is not supported");
            LbPolicy::RoundRobin
        }
    }
}

/// A field of settings, and the policy it belongs to.
const fn name_of(config: &pc::LbConfig) -> (&'static str, Option<pc::LbPolicy>) {
    match config {
        pc::LbConfig::LeastRequestLbConfig(_) => {
            ("least_request_lb_config", Some(pc::LbPolicy::LeastRequest))
        }
        pc::LbConfig::RoundRobinLbConfig(_) => ("round_robin_lb_config", Some(pc::LbPolicy::RoundRobin)),
        pc::LbConfig::RingHashLbConfig(_) => ("ring_hash_lb_config", Some(pc::LbPolicy::RingHash)),
        pc::LbConfig::MaglevLbConfig(_) => ("maglev_lb_config", Some(pc::LbPolicy::Maglev)),
        pc::LbConfig::OriginalDstLbConfig(_) => ("original_dst_lb_config", None),
    }
}

fn choice_count(given: Option<u32>, at: &At<'_>) -> u32 {
    let default = LeastRequest::default().choice_count;
    match given {
        Some(count) if count < 2 => {
            at.field("choice_count").refuse("must be at least 2");
            default
        }
        Some(count) => count,
        None => default,
    }
}

fn bias(given: Option<&RuntimeDouble>, at: &At<'_>) -> f64 {
    match given.map(|bias| at.runtime().number(&bias.runtime_key, bias.default_value)) {
        Some(value) if value >= 0.0 && value.is_finite() => value,
        Some(_) => {
            at.field("active_request_bias").field("default_value").refuse("must not be negative");
            1.0
        }
        None => 1.0,
    }
}

fn sizes(policy: &mut RingHash, least: Option<u64>, most: Option<u64>, at: &At<'_>) {
    policy.minimum_ring_size = least.unwrap_or(policy.minimum_ring_size);
    policy.maximum_ring_size = most.unwrap_or(policy.maximum_ring_size);
    if policy.minimum_ring_size > policy.maximum_ring_size {
        at.field("minimum_ring_size").refuse("must not be above `maximum_ring_size`");
        *policy = RingHash { hashing: policy.hashing.clone(), ..RingHash::default() };
    }
}

fn unknown_function(at: &At<'_>) -> RingFunction {
    at.field("hash_function").refuse("is not known");
    RingFunction::XxHash
}

fn both(use_hostname: bool, balance_factor: Option<u32>, at: &At<'_>) -> Hashing {
    if balance_factor.is_some_and(|factor| factor < 100) {
        at.field("hash_balance_factor").refuse("must be at least 100");
    }
    Hashing { use_hostname, balance_factor: balance_factor.map(|factor| factor.max(100)) }
}

fn older_slow(config: Option<&pc::SlowStartConfig>, at: &At<'_>) -> Option<SlowStart> {
    let config = config?;
    let window = config.slow_start_window.as_ref();
    slow(window, config.aggression.as_ref(), config.min_weight_percent, &at.field("slow_start_config"))
}

fn newer_slow(config: Option<&common::SlowStartConfig>, at: &At<'_>) -> Option<SlowStart> {
    let config = config?;
    let window = config.slow_start_window.as_ref();
    slow(window, config.aggression.as_ref(), config.min_weight_percent, &at.field("slow_start_config"))
}

fn slow(
    window: Option<&Duration>,
    aggression: Option<&RuntimeDouble>,
    least: Option<Percent>,
    at: &At<'_>,
) -> Option<SlowStart> {
    let aggression =
        aggression.map_or(1.0, |value| at.runtime().number(&value.runtime_key, value.default_value));
    if aggression <= 0.0 || !aggression.is_finite() {
        at.field("aggression").field("default_value").refuse("must be greater than 0");
        return None;
    }
    let min_weight = match least {
        Some(value) => percent(value, &at.field("min_weight_percent")),
        None => Fraction::from_percent(10),
    };
    let window = positive(window?, &at.field("slow_start_window"))?;
    Some(SlowStart { window, aggression, min_weight })
}

/// The first policy of the list that is known, as gRFC A52 says; none known is a refusal.
fn extension(message: &proto::LoadBalancingPolicy, depth: usize, at: &At<'_>) -> Option<Chosen> {
    if depth > NESTING_MAX {
        at.refuse(format!("nested deeper than {NESTING_MAX}"));
        return None;
    }
    if message.policies.is_empty() {
        at.field("policies").refuse("at least one is required");
    }
    for (i, policy) in message.policies.iter().enumerate() {
        let at = at.item("policies", i);
        let at = at.field("typed_extension_config");
        let Some(config) = at.need(policy.typed_extension_config.as_ref()) else { continue };
        let at = at.field("typed_config");
        let Some(any) = at.need(config.typed_config.as_ref()) else { continue };
        if let Some(found) = at.unpack::<WrrLocality>(any) {
            let at = at.field("endpoint_picking_policy");
            let inner = found.message()?.endpoint_picking_policy;
            let chosen = extension(at.need(inner.as_ref())?, depth + 1, &at)?;
            return Some(Chosen { locality: LocalityLb::Weighted, ..chosen });
        }
        if let Some(found) = at.unpack::<Subset>(any) {
            let message = found.message()?;
            let subsets = subset::newer(&message, &at);
            let at = at.field("subset_lb_policy");
            let chosen = extension(at.need(message.subset_lb_policy.as_ref())?, depth + 1, &at)?;
            if chosen.subsets.is_some() {
                at.refuse("subsets are not divided again");
            }
            return Some(Chosen { subsets: Some(subsets), ..chosen });
        }
        match one(any, &at) {
            Some(chosen) => return chosen,
            None => at.refuse_type(any),
        }
    }
    None
}

/// A policy of hosts; `None` where the type is another, and `Some(None)` where it does not decode.
fn one(any: &prost_types::Any, at: &At<'_>) -> Option<Option<Chosen>> {
    if let Some(found) = at.unpack::<RoundRobin>(any) {
        return Some(found.message().map(|m| Chosen {
            policy: LbPolicy::RoundRobin,
            locality: locality(m.locality_lb_config.as_ref()),
            zone_aware: zones(m.locality_lb_config.as_ref(), at),
            slow_start: newer_slow(m.slow_start_config.as_ref(), at),
            subsets: None,
        }));
    }
    if let Some(found) = at.unpack::<Random>(any) {
        return Some(found.message().map(|m| Chosen {
            policy: LbPolicy::Random,
            locality: locality(m.locality_lb_config.as_ref()),
            zone_aware: zones(m.locality_lb_config.as_ref(), at),
            slow_start: None,
            subsets: None,
        }));
    }
    if let Some(found) = at.unpack::<least::LeastRequest>(any) {
        return Some(found.message().map(|m| least_request(&m, at)));
    }
    if let Some(found) = at.unpack::<ring::RingHash>(any) {
        return Some(found.message().map(|m| ring_hash(&m, at)));
    }
    if let Some(found) = at.unpack::<MaglevExtension>(any) {
        return Some(found.message().map(|m| {
            let config = m.consistent_hashing_lb_config.as_ref();
            let policy = Maglev {
                table_size: m.table_size.unwrap_or(Maglev::default().table_size),
                hashing: config.map(|c| newer_both(c, at)).unwrap_or_default(),
            };
            by_hash(LbPolicy::Maglev(policy), m.locality_weighted_lb_config.is_some())
        }));
    }
    None
}

fn least_request(m: &least::LeastRequest, at: &At<'_>) -> Chosen {
    let scan = match least::least_request::SelectionMethod::try_from(m.selection_method) {
        Ok(method) => method == least::least_request::SelectionMethod::FullScan,
        Err(_) => {
            at.field("selection_method").refuse("is not known");
            false
        }
    };
    Chosen {
        policy: LbPolicy::LeastRequest(LeastRequest {
            choice_count: choice_count(m.choice_count, at),
            active_request_bias: bias(m.active_request_bias.as_ref(), at),
            full_scan: scan || m.enable_full_scan == Some(true),
        }),
        locality: locality(m.locality_lb_config.as_ref()),
        zone_aware: zones(m.locality_lb_config.as_ref(), at),
        slow_start: newer_slow(m.slow_start_config.as_ref(), at),
        subsets: None,
    }
}

fn ring_hash(m: &ring::RingHash, at: &At<'_>) -> Chosen {
    use ring::ring_hash::HashFunction as F;
    let hashing = match &m.consistent_hashing_lb_config {
        Some(config) => {
            if m.use_hostname_for_hashing || m.hash_balance_factor.is_some() {
                at.field("use_hostname_for_hashing")
                    .refuse("has no effect together with `consistent_hashing_lb_config`");
            }
            newer_both(config, at)
        }
        None => both(m.use_hostname_for_hashing, m.hash_balance_factor, at),
    };
    let mut policy = RingHash { hashing, ..RingHash::default() };
    sizes(&mut policy, m.minimum_ring_size, m.maximum_ring_size, at);
    policy.function = match F::try_from(m.hash_function) {
        Ok(F::DefaultHash | F::XxHash) => RingFunction::XxHash,
        Ok(F::MurmurHash2) => RingFunction::Murmur2,
        Err(_) => unknown_function(at),
    };
    by_hash(LbPolicy::RingHash(policy), m.locality_weighted_lb_config.is_some())
}

fn newer_both(config: &common::ConsistentHashingLbConfig, at: &At<'_>) -> Hashing {
    let at = at.field("consistent_hashing_lb_config");
    both(config.use_hostname_for_hashing, config.hash_balance_factor, &at)
}

fn by_hash(policy: LbPolicy, weighted: bool) -> Chosen {
    let locality = if weighted { LocalityLb::Weighted } else { LocalityLb::None };
    Chosen { policy, locality, zone_aware: ZoneAware::default(), slow_start: None, subsets: None }
}

fn locality(config: Option<&LocalityLbConfig>) -> LocalityLb {
    match config.and_then(|c| c.locality_config_specifier.as_ref()) {
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => LocalityLb::Weighted,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(_)) | None => LocalityLb::None,
    }
}

fn zones(config: Option<&LocalityLbConfig>, at: &At<'_>) -> ZoneAware {
    match config.and_then(|c| c.locality_config_specifier.as_ref()) {
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(config)) => zone_aware(
            config.routing_enabled,
            config.min_cluster_size,
            config.fail_traffic_on_panic,
            config.force_locality_direct_routing,
            &at.field("locality_lb_config").field("zone_aware_lb_config"),
        ),
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) | None => ZoneAware::default(),
    }
}

fn zone_aware(
    enabled: Option<Percent>,
    least: Option<u64>,
    fail_traffic_on_panic: bool,
    force_locality_direct_routing: bool,
    at: &At<'_>,
) -> ZoneAware {
    let default = ZoneAware::default();
    let routing_enabled = enabled.map_or(default.routing_enabled, |value| {
        // Whole percent, as Envoy rounds.
        let share = percent(value, &at.field("routing_enabled"));
        (share.millionths() + 5_000) / 10_000
    });
    let min_cluster_size = least.unwrap_or(default.min_cluster_size);
    ZoneAware { routing_enabled, min_cluster_size, fail_traffic_on_panic, force_locality_direct_routing }
}
