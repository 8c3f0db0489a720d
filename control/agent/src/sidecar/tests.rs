use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use super::image::Image;
use super::layout::{Layout, layout};
use super::spec::spec;
use super::*;
use crate::config::AgentConfig;
use crate::member::{Member, MemberPort, Network, RedirectChoice, Task};
use outrigger_member::port::{Declared, Protocol};

fn config() -> AgentConfig {
    AgentConfig::parse("control: [\"10.0.0.5:15012\"]\ntrustBundle: /x\nlocality: hq/rack7\nsidecar: {env: {TZ: UTC}, cpus: 0.5}\n").unwrap()
}

fn port(name: &str, number: u16, target: u16, published: Option<u16>) -> MemberPort {
    let declared = Declared { name: name.into(), number, target, protocol: Protocol::Http };
    MemberPort { declared, published }
}

fn member(network: Network) -> Member {
    Member {
        container_id: "0123456789abcdef".repeat(4),
        container_name: "ecs-shop-b-3-app-00".into(),
        task: Task {
            arn: "arn:aws:ecs:eu-west-1:1:task/prod/t1".into(),
            id: "t1".into(),
            cluster: "prod".into(),
            family: "shop-b".into(),
            revision: "3".into(),
            container: "app".into(),
        },
        service: "b".into(),
        namespace: "shop".into(),
        service_account: "b".into(),
        version: "v1".into(),
        group: String::new(),
        healthy: None,
        network,
        ports: vec![port("http", 80, 8080, Some(32_768)), port("admin", 81, 15_106, Some(32_769))],
        pid: 1,
        sandbox: "s1".into(),
        redirect: RedirectChoice::default(),
        outbound_port: None,
        notices: Vec::new(),
    }
}

fn image() -> Image {
    Image::new("sha256:aa".into(), &HashMap::from([(image::CAPTURES.into(), "inbound dns".into())]))
}

fn bridge_layout(member: &Member) -> Layout {
    layout(member, &config(), None, &BTreeSet::new()).unwrap()
}

#[test]
fn image_says_what_it_can_serve() {
    let captures = image().captures;
    assert!(captures.dns && !captures.outbound);
    assert_eq!(Image::new("x".into(), &HashMap::new()).captures, image::Captures::default());
}

#[test]
fn bridge_sidecar_is_reached_at_mapped_ports_and_listens_beside_the_application() {
    let layout = bridge_layout(&member(Network::Bridge));
    assert_eq!(layout.reached, [32_768, 32_769]);
    assert_eq!(layout.inbound, [15_006, 15_206], "15106 is the application's own");
    assert_eq!((layout.outbound, layout.host.len()), (15_001, 0));
}

#[test]
fn host_sidecars_have_runs_of_ports_that_do_not_touch() {
    let (member, config) = (member(Network::Host), config());
    let first = layout(&member, &config, None, &BTreeSet::new()).unwrap();
    assert_eq!(first.host.len(), 5, "two inbound, one outbound, two for the admin interface");
    assert_eq!(first.reached, first.inbound);
    let again = layout(&member, &config, first.host.first().copied(), &BTreeSet::new()).unwrap();
    assert_eq!(again, first, "kept over a restart of the agent");
    let taken: BTreeSet<u16> = first.host.iter().copied().collect();
    let second = layout(&member, &config, None, &taken).unwrap();
    assert!(second.host.iter().all(|port| !taken.contains(port)));
    let fixed = Member { outbound_port: Some(15_001), ..member };
    assert_eq!(layout(&fixed, &config, None, &taken).unwrap().outbound, 15_001);
}

#[test]
fn host_ports_are_given_to_the_last_and_not_beyond() {
    let (member, mut config) = (member(Network::Host), config());
    config.sidecar.host_ports = (21_000, 21_009);
    let mut taken = BTreeSet::new();
    for _ in 0..2 {
        let given = layout(&member, &config, None, &taken);
        // Runs that start in the middle may leave no room; then the range is too small for two.
        let Ok(given) = given else { return };
        taken.extend(given.host);
    }
    assert_eq!(taken.len(), 10);
    assert!(layout(&member, &config, None, &taken).is_err());
}

#[test]
fn sidecar_is_locked_up_and_says_whose_it_is() {
    let member = member(Network::Bridge);
    let made = spec(&member, &config(), IpAddr::from([10, 0, 0, 7]), &image(), &bridge_layout(&member));
    let body = made.body(15_000, Path::new("/state/x"));
    let host = body.host_config.unwrap();
    assert_eq!(host.network_mode.unwrap(), format!("container:{}", member.container_id));
    assert_eq!(host.binds.unwrap(), ["/state/x:/var/lib/outrigger-proxy"]);
    assert_eq!(host.readonly_rootfs, Some(true));
    assert_eq!((host.cap_drop.unwrap(), host.privileged), (vec!["ALL".to_owned()], None));
    assert_eq!(
        (host.memory, host.memory_swap, host.nano_cpus),
        (Some(128 << 20), Some(128 << 20), Some(500_000_000))
    );
    assert_eq!(body.user.unwrap(), "1337:1337");
    let labels = body.labels.unwrap();
    assert_eq!(labels["outrigger.io/for"], member.container_id);
    assert_eq!(labels["outrigger.io/task-arn"], member.task.arn);
    assert_eq!(labels["outrigger.io/identity"], "shop/b");
    let env = body.env.unwrap();
    for expected in [
        "OUTRIGGER_PORTS=http:http:80:8080:32768,admin:http:81:15106:32769",
        "OUTRIGGER_ADDRESS=10.0.0.7",
        "OUTRIGGER_CONTROL=10.0.0.5:15012",
        "OUTRIGGER_LOCALITY=hq/rack7",
        "OUTRIGGER_ADMIN_ADDRESS=127.0.0.1:15000",
        "TZ=UTC",
        &format!("OUTRIGGER_INSTANCE_ID={}", made.instance),
    ] {
        assert!(env.iter().any(|e| e == expected), "{env:#?} lacks {expected}");
    }
    assert!(made.instance.starts_with("t1-0123456789ab-"));
    let args = body.cmd.unwrap();
    let node: serde_json::Value = serde_json::from_str(&args[1]).unwrap();
    assert_eq!(node["node"]["metadata"]["BIND_PORTS"], serde_json::json!({"32768": 15006, "32769": 15206}));
    assert_eq!(
        node["node"]["metadata"]["CAPTURE"],
        serde_json::json!({"dns": 15053}),
        "what its image can serve"
    );
    assert_eq!(node["node"]["metadata"]["CONTAINER_ID"], member.container_id);
}

#[test]
fn another_image_or_setting_is_another_sidecar_and_another_admin_port_is_not() {
    let (member, config) = (member(Network::Bridge), config());
    let (address, layout) = (IpAddr::from([10, 0, 0, 7]), bridge_layout(&member));
    let one = spec(&member, &config, address, &image(), &layout);
    assert_eq!(one, spec(&member, &config, address, &image(), &layout));
    let newer = Image { id: "sha256:bb".into(), ..image() };
    let mut longer = config.clone();
    longer.sidecar.drain_seconds += 1;
    for other in [
        spec(&member, &config, address, &newer, &layout),
        spec(&member, &longer, address, &image(), &layout),
        spec(&member, &config, IpAddr::from([10, 0, 0, 8]), &image(), &layout),
    ] {
        assert_ne!((one.digest.as_str(), one.name.as_str()), (other.digest.as_str(), other.name.as_str()));
        assert_ne!(one.instance, other.instance, "both are in the registry during an upgrade");
    }
}

#[test]
fn member_that_is_not_redirected_announces_no_ports() {
    let mut member = member(Network::Bridge);
    member.redirect.off = true;
    let made = spec(&member, &config(), IpAddr::from([10, 0, 0, 7]), &image(), &bridge_layout(&member));
    assert!(made.body(15_000, Path::new("/x")).env.unwrap().contains(&"OUTRIGGER_PORTS=".to_owned()));
}

#[test]
fn sidecar_is_read_back_from_its_labels() {
    let member = member(Network::Host);
    let made = spec(&member, &config(), IpAddr::from([10, 0, 0, 7]), &image(), &bridge_layout(&member));
    let labels = made.body(15_010, Path::new("/x")).labels.unwrap();
    let container = |status: &str, health: &str| {
        let text = serde_json::json!({"Id": "s1", "Name": "/outrigger-x", "Config": {"Labels": labels},
            "State": {"Status": status, "Running": status == "running", "Health": {"Status": health}}});
        Sidecar::of(&serde_json::from_value(text).unwrap()).unwrap()
    };
    let read = container("running", "healthy");
    assert_eq!(
        (read.spec, read.instance, read.sandbox),
        (made.digest.clone(), made.instance, member.sandbox)
    );
    assert_eq!((read.admin_port, read.identity), (15_010, ("shop".into(), "b".into())));
    for (status, health, state) in [
        ("created", "none", SidecarState::Created),
        ("running", "starting", SidecarState::Starting),
        ("running", "healthy", SidecarState::Healthy),
        ("running", "unhealthy", SidecarState::Unhealthy),
        ("exited", "unhealthy", SidecarState::Exited),
        ("restarting", "starting", SidecarState::Unhealthy),
    ] {
        assert_eq!(container(status, health).state, state);
    }
    let mut task = labels.clone();
    task.insert("com.amazonaws.ecs.task-arn".into(), "arn:aws:ecs:eu-west-1:1:task/c/t".into());
    let pretender = serde_json::json!({"Id": "s1", "Config": {"Labels": task}});
    let read = Sidecar::of(&serde_json::from_value(pretender).unwrap());
    assert_eq!(read, None, "a task that says it is a sidecar is none");
    let other = serde_json::json!({"Id": "s1", "Config": {"Labels": {}}});
    assert_eq!(Sidecar::of(&serde_json::from_value(other).unwrap()), None);
}

#[test]
fn group_of_a_task_is_told_to_its_sidecar_and_to_no_other() {
    let env = |group: &str| {
        let member = Member { group: group.into(), ..member(Network::Bridge) };
        let address: IpAddr = "10.0.0.7".parse().unwrap();
        let spec = spec(&member, &config(), address, &image(), &bridge_layout(&member));
        spec.body(15_000, Path::new("/state")).env.unwrap_or_default()
    };
    assert!(env("vms").contains(&"OUTRIGGER_WORKLOAD_GROUP=vms".to_owned()));
    assert!(!env("").iter().any(|one| one.starts_with("OUTRIGGER_WORKLOAD_GROUP")));
}
