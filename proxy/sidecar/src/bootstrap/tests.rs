use super::*;
use outrigger_xds::bootstrap::load_bootstrap;

const CLUSTERS: &str = "
static_resources:
  clusters:
  - name: one
    load_assignment: {cluster_name: one, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}
  - name: two
    load_assignment: {cluster_name: two, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 2}}}}]}]}
";

/// Service, kinds and addresses of a stream.
type Stream = (Service, Vec<Kind>, Vec<String>);

fn streams(dynamic: &str) -> Result<Vec<Stream>, Vec<String>> {
    let text = format!("dynamic_resources: {{{dynamic}}}{CLUSTERS}");
    let bootstrap = load_bootstrap(&text, Format::Yaml).expect("readable");
    match controls(&bootstrap) {
        Ok(controls) => Ok(controls
            .into_iter()
            .map(|c| {
                let Way::Stream(stream) = c.way else { panic!("a stream") };
                let (address, options) = *stream;
                (options.service, c.link.kinds.into_iter().collect(), address.addresses)
            })
            .collect()),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    }
}

fn service(name: &str) -> String {
    format!("api_type: DELTA_GRPC, grpc_services: [{{envoy_grpc: {{cluster_name: {name}}}}}]")
}

#[test]
fn kinds_are_asked_for_where_the_file_says_and_nowhere_else() {
    let at = |port: u16| vec![format!("127.0.0.1:{port}")];
    let named =
        vec![Kind::Runtime, Kind::Endpoints, Kind::Secret, Kind::Extension, Kind::Scope, Kind::RouteConfig];
    let ads = format!("ads_config: {{{}}}", service("one"));
    assert_eq!(streams(&ads).unwrap(), [(Service::Aggregated, named.clone(), at(1))]);
    let all = streams(&format!("{ads}, cds_config: {{ads: {{}}}}, lds_config: {{ads: {{}}}}")).unwrap();
    assert_eq!(all, [(Service::Aggregated, Kind::ALL.to_vec(), at(1))]);
    let own = |kind: &str, name: &str| format!("{kind}_config: {{api_config_source: {{{}}}}}", service(name));
    let split = streams(&format!("{ads}, cds_config: {{ads: {{}}}}, {}", own("lds", "two"))).unwrap();
    let mut aggregated = [&[Kind::Cluster], named.as_slice()].concat();
    aggregated.sort();
    assert_eq!(
        split,
        [
            (Service::Aggregated, aggregated, at(1)),
            (Service::Own(Kind::Listener), vec![Kind::Listener], at(2))
        ]
    );
    let both = streams(&format!("{}, {}", own("cds", "one"), own("lds", "two"))).unwrap();
    assert_eq!(
        both,
        [
            (Service::Own(Kind::Cluster), vec![Kind::Cluster], at(1)),
            (Service::Own(Kind::Listener), vec![Kind::Listener], at(2))
        ]
    );
}

#[test]
fn static_cluster_that_needs_a_stream_that_is_not_there_is_refused() {
    let text =
        "static_resources: {clusters: [{name: c, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}}]}";
    let bootstrap = load_bootstrap(text, Format::Yaml).expect("readable");
    let found: Vec<String> = problems(&bootstrap, false).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["cluster/c: takes endpoints `c` from `ads`, and there is no `ads_config`"]);
    assert_eq!(problems(&bootstrap, true), [], "a mesh brings its own stream");
}
