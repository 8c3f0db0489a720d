//! Whatever a control service sends as a resource is refused with reasons, or means the same when it is written in
//! another order of fields; and the compiler bears what was accepted.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outrigger_api::Kind;
use outrigger_api::envoy::config::cluster::v3::Cluster;
use outrigger_api::envoy::config::endpoint::v3::ClusterLoadAssignment;
use outrigger_api::envoy::config::listener::v3::Listener;
use outrigger_api::envoy::config::route::v3::RouteConfiguration;
use outrigger_api::envoy::extensions::transport_sockets::tls::v3::Secret;
use outrigger_traffic::config::{Config, ConfigError, Resource};
use outrigger_xds::translate::{Surroundings, translate_any_with};
use prost::Message;

mod no_files;

fn translate(kind: Kind, bytes: &[u8]) -> Result<Resource, Vec<ConfigError>> {
    let around = Surroundings { files: &no_files::NoFiles, ..Surroundings::default() };
    translate_any_with(kind.type_url(), bytes, &around)
}

/// As a sender with another encoder would write it.
fn again(kind: Kind, bytes: &[u8]) -> Vec<u8> {
    fn one<M: Message + Default>(bytes: &[u8]) -> Vec<u8> {
        M::decode(bytes).expect("what was accepted decodes").encode_to_vec()
    }
    match kind {
        Kind::Cluster => one::<Cluster>(bytes),
        Kind::Endpoints => one::<ClusterLoadAssignment>(bytes),
        Kind::Secret => one::<Secret>(bytes),
        Kind::Listener => one::<Listener>(bytes),
        Kind::RouteConfig => one::<RouteConfiguration>(bytes),
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    let kind = Kind::ALL[usize::from(*choice) % Kind::ALL.len()];
    let resource = match translate(kind, bytes) {
        Ok(resource) => resource,
        Err(reasons) => {
            assert!(!reasons.is_empty() && reasons.iter().all(|one| !one.reason.is_empty()), "{reasons:?}");
            return;
        }
    };
    assert_eq!(translate(kind, &again(kind, bytes)), Ok(resource.clone()));
    let mut config = Config::default();
    match resource {
        Resource::Listener(v) => config.listeners.push(v),
        Resource::RouteConfig(v) => config.route_configs.push(v),
        Resource::Cluster(v) => config.clusters.push(v),
        Resource::Endpoints(v) => config.endpoints.push(v),
        Resource::Secret(v) => config.secrets.push(v),
    }
    if let Err(reasons) = outrigger_traffic::compile(&config, None) {
        assert!(!reasons.is_empty());
    }
});
