use super::*;
use crate::capture::iptables::Family;
use crate::member::{RedirectChoice, Task};

fn rules() -> Rules {
    Rules {
        uid: 1337,
        inbound: vec![(8080, 15_006), (9090, 15_106)],
        outbound: Some(15_001),
        dns: Some(15_053),
        exclude_ports: BTreeSet::from([3306]),
        exclude_cidrs: vec!["10.9.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
    }
}

const NFT: &str = "add table inet outrigger
delete table inet outrigger
table inet outrigger {
\tchain inbound {
\t\ttype nat hook prerouting priority -100; policy accept;
\t\tiifname \"lo\" return
\t\ttcp dport 8080 redirect to :15006
\t\ttcp dport 9090 redirect to :15106
\t}
\tchain outbound {
\t\ttype nat hook output priority -110; policy accept;
\t\tmeta skuid 1337 return
\t\tip daddr 169.254.170.2/32 return
\t\tip daddr 169.254.169.254/32 return
\t\tip6 daddr fd00:ec2::254/128 return
\t\tip daddr 10.9.0.0/16 return
\t\tip6 daddr fd00::/8 return
\t\tmeta l4proto { tcp, udp } th dport 3306 return
\t\tip daddr 127.0.0.11 meta l4proto { tcp, udp } th dport 53 redirect to :15053
\t\toifname \"lo\" return
\t\tmeta l4proto { tcp, udp } th dport 53 redirect to :15053
\t\tmeta l4proto tcp redirect to :15001
\t}
}
";

const IPTABLES: &str = "*nat
:OUTRIGGER_INBOUND - [0:0]
:OUTRIGGER_OUTBOUND - [0:0]
-A OUTRIGGER_INBOUND -i lo -j RETURN
-A OUTRIGGER_INBOUND -p tcp --dport 8080 -j REDIRECT --to-ports 15006
-A OUTRIGGER_INBOUND -p tcp --dport 9090 -j REDIRECT --to-ports 15106
-A OUTRIGGER_OUTBOUND -m owner --uid-owner 1337 -j RETURN
-A OUTRIGGER_OUTBOUND -d 169.254.170.2/32 -j RETURN
-A OUTRIGGER_OUTBOUND -d 169.254.169.254/32 -j RETURN
-A OUTRIGGER_OUTBOUND -d 10.9.0.0/16 -j RETURN
-A OUTRIGGER_OUTBOUND -p tcp --dport 3306 -j RETURN
-A OUTRIGGER_OUTBOUND -p udp --dport 3306 -j RETURN
-A OUTRIGGER_OUTBOUND -d 127.0.0.11/32 -p tcp --dport 53 -j REDIRECT --to-ports 15053
-A OUTRIGGER_OUTBOUND -d 127.0.0.11/32 -p udp --dport 53 -j REDIRECT --to-ports 15053
-A OUTRIGGER_OUTBOUND -o lo -j RETURN
-A OUTRIGGER_OUTBOUND -p tcp --dport 53 -j REDIRECT --to-ports 15053
-A OUTRIGGER_OUTBOUND -p udp --dport 53 -j REDIRECT --to-ports 15053
-A OUTRIGGER_OUTBOUND -p tcp -j REDIRECT --to-ports 15001
COMMIT
";

#[test]
fn full_rules_are_written_for_nft() {
    assert_eq!(nft::text(&rules()), NFT);
}

#[test]
fn full_rules_are_written_for_iptables() {
    assert_eq!(iptables::text(&rules(), Family::V4), IPTABLES);
    let v6 = iptables::text(&rules(), Family::V6);
    assert!(v6.contains("-d fd00::/8 -j RETURN") && v6.contains("-d fd00:ec2::254/128 -j RETURN"));
    assert!(!v6.contains("169.254") && !v6.contains("127.0.0.11") && !v6.contains("10.9."));
}

#[test]
fn inbound_alone_leaves_what_goes_out_alone() {
    let rules = Rules { outbound: None, dns: None, ..rules() };
    assert!(!nft::text(&rules).contains("chain outbound"));
    assert!(!iptables::text(&rules, Family::V4).contains("-A OUTRIGGER_OUTBOUND"));
}

#[test]
fn dns_stays_with_its_resolver_where_only_connections_are_redirected() {
    let rules = Rules { dns: None, ..rules() };
    let text = nft::text(&rules);
    assert!(!text.contains("15053") && text.contains("tcp dport 53 return\n"));
    let (dns, all) = (text.find("tcp dport 53 return"), text.find("redirect to :15001"));
    assert!(dns < all, "before everything is redirected");
}

#[test]
fn rules_of_iptables_are_installed_once_and_removed_whole() {
    let steps = iptables::install(&rules(), Family::V4);
    assert_eq!(steps[0].argv, ["iptables-restore", "--noflush"]);
    for step in &steps[1..] {
        let check = step.unless.as_ref().expect("not inserted twice");
        assert!(check.contains(&"-C".to_owned()) && step.argv.contains(&"-I".to_owned()));
    }
    let removed: Vec<String> = iptables::remove(Family::V6).iter().map(|step| step.argv.join(" ")).collect();
    assert_eq!(removed.len(), 6);
    assert!(removed[0].starts_with("ip6tables -w 5 -t nat -D PREROUTING"));
}

fn captured(redirect: Redirect, captures: Captures) -> Option<Rules> {
    let member = Member {
        container_id: String::new(),
        container_name: String::new(),
        task: Task {
            arn: String::new(),
            id: String::new(),
            cluster: String::new(),
            family: String::new(),
            revision: String::new(),
            container: String::new(),
        },
        service: "b".into(),
        namespace: "shop".into(),
        service_account: "b".into(),
        version: String::new(),
        group: String::new(),
        healthy: None,
        network: Network::Bridge,
        ports: Vec::new(),
        pid: 1,
        sandbox: String::new(),
        redirect: RedirectChoice { exclude_ports: BTreeSet::from([5432]), ..RedirectChoice::default() },
        outbound_port: None,
        notices: Vec::new(),
    };
    let config = CaptureConfig {
        outbound: redirect,
        dns: redirect,
        exclude_ports: BTreeSet::from([3306]),
        ..CaptureConfig::default()
    };
    let host = Member { network: Network::Host, ..member.clone() };
    assert_eq!(Rules::of(&host, &[], &config, captures, 1337), None, "the namespace is everybody's");
    let off =
        Member { redirect: RedirectChoice { off: true, ..RedirectChoice::default() }, ..member.clone() };
    assert_eq!(Rules::of(&off, &[], &config, captures, 1337), None);
    Rules::of(&member, &[], &config, captures, 1337)
}

#[test]
fn what_the_sidecar_cannot_serve_is_redirected_only_on_demand() {
    let all = Captures { outbound: true, dns: true };
    let ports = |rules: Option<Rules>| rules.map(|rules| (rules.outbound, rules.dns));
    assert_eq!(ports(captured(Redirect::Auto, Captures::default())), Some((None, None)));
    assert_eq!(ports(captured(Redirect::Auto, all)), Some((Some(15_001), Some(15_053))));
    assert_eq!(ports(captured(Redirect::On, Captures::default())), Some((Some(15_001), Some(15_053))));
    assert_eq!(ports(captured(Redirect::Off, all)), Some((None, None)));
    let excluded = captured(Redirect::Auto, all).map(|rules| rules.exclude_ports);
    assert_eq!(excluded, Some(BTreeSet::from([3306, 5432])), "those of the host and those of the task");
}
