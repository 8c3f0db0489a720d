//! How a host is picked: the older `lb_policy`, or the list in `load_balancing_policy`.

use crate::translate::At;
use crate::translate::value::percent;
use outrigger_api::envoy::config::cluster::v3 as proto;
use outrigger_api::envoy::extensions::load_balancing_policies::common::v3::{
    LocalityLbConfig, locality_lb_config::LocalityConfigSpecifier,
};
use outrigger_api::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use outrigger_api::envoy::extensions::load_balancing_policies::random::v3::Random;
use outrigger_api::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;
use outrigger_api::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;
use outrigger_traffic::config::{Cluster, LbPolicy, LocalityLb};
use proto::cluster as pc;

/// Hosts compared by least request where nothing is said.
const CHOICES: u32 = 2;
/// Deepest nesting of policies: weighted localities around a policy of hosts.
const NESTING_MAX: usize = 4;

/// Sets policy, locality rule and panic threshold of a cluster.
pub(super) fn balancing(message: &proto::Cluster, cluster: &mut Cluster, at: &At<'_>) {
    if let Some(common) = &message.common_lb_config {
        let at = at.field("common_lb_config");
        if let Some(threshold) = common.healthy_panic_threshold {
            cluster.healthy_panic_threshold = percent(threshold, &at.field("healthy_panic_threshold"));
        }
        if let Some(pc::common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) =
            common.locality_config_specifier
        {
            cluster.locality_lb = LocalityLb::Weighted;
        }
    }
    if let Some(policy) = &message.load_balancing_policy {
        let at = at.field("load_balancing_policy");
        if let Some((policy, locality)) = extension(policy, 0, &at) {
            cluster.lb_policy = policy;
            if locality == LocalityLb::Weighted {
                cluster.locality_lb = locality;
            }
        }
        return;
    }
    let choices = message.lb_config.as_ref().and_then(|c| match c {
        pc::LbConfig::LeastRequestLbConfig(config) => {
            Some(choice_count(config.choice_count, &at.field("least_request_lb_config")))
        }
        // Read where the destinations are.
        pc::LbConfig::OriginalDstLbConfig(_) => None,
    });
    if choices.is_some() && message.lb_policy != pc::LbPolicy::LeastRequest as i32 {
        at.field("least_request_lb_config").refuse("has no effect without `lb_policy: LEAST_REQUEST`");
    }
    cluster.lb_policy = match pc::LbPolicy::try_from(message.lb_policy) {
        // Destinations are not balanced; that the two come together only is said where the destinations are.
        Ok(pc::LbPolicy::RoundRobin | pc::LbPolicy::ClusterProvided) => LbPolicy::RoundRobin,
        Ok(pc::LbPolicy::Random) => LbPolicy::Random,
        Ok(pc::LbPolicy::LeastRequest) => LbPolicy::LeastRequest { choice_count: choices.unwrap_or(CHOICES) },
        Ok(pc::LbPolicy::LoadBalancingPolicyConfig) => {
            at.field("load_balancing_policy").refuse("is required with LOAD_BALANCING_POLICY_CONFIG");
            LbPolicy::RoundRobin
        }
        Err(_) => {
            at.field("lb_policy").refuse("is not supported");
            LbPolicy::RoundRobin
        }
    };
}

fn choice_count(given: Option<u32>, at: &At<'_>) -> u32 {
    match given {
        Some(count) if count < 2 => {
            at.field("choice_count").refuse("must be at least 2");
            CHOICES
        }
        Some(count) => count,
        None => CHOICES,
    }
}

/// The first policy of the list that is known, as gRFC A52 says; none known is a refusal.
fn extension(
    message: &proto::LoadBalancingPolicy,
    depth: usize,
    at: &At<'_>,
) -> Option<(LbPolicy, LocalityLb)> {
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
        if let Some(found) = at.unpack::<RoundRobin>(any) {
            return found.message().map(|m| (LbPolicy::RoundRobin, locality(m.locality_lb_config.as_ref())));
        }
        if let Some(found) = at.unpack::<Random>(any) {
            return found.message().map(|m| (LbPolicy::Random, locality(m.locality_lb_config.as_ref())));
        }
        if let Some(found) = at.unpack::<LeastRequest>(any) {
            return found.message().map(|m| {
                let choice_count = choice_count(m.choice_count, &at);
                (LbPolicy::LeastRequest { choice_count }, locality(m.locality_lb_config.as_ref()))
            });
        }
        if let Some(found) = at.unpack::<WrrLocality>(any) {
            let at = at.field("endpoint_picking_policy");
            let inner = found.message()?.endpoint_picking_policy;
            let (policy, _) = extension(at.need(inner.as_ref())?, depth + 1, &at)?;
            return Some((policy, LocalityLb::Weighted));
        }
        at.refuse_type(any);
    }
    None
}

fn locality(config: Option<&LocalityLbConfig>) -> LocalityLb {
    match config.and_then(|c| c.locality_config_specifier.as_ref()) {
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => LocalityLb::Weighted,
        None => LocalityLb::None,
    }
}
