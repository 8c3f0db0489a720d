//! Truth tables.

use super::{AuthzView, CompiledRbac, PeerNames, Shadow};
use crate::config::*;
use crate::route::tests::Head;
use proptest::prelude::*;

const SPIFFE: &str = "spiffe://mesh/ns/demo/sa/a";

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).into()).collect()
}

fn policy(permission: Permission, principal: Principal) -> Policy {
    Policy { permissions: vec![permission], principals: vec![principal] }
}

fn rbac(action: RbacAction, policies: Vec<(&str, Policy)>) -> Rbac {
    let policies = policies.into_iter().map(|(n, p)| (n.into(), p)).collect();
    Rbac { rules: Some(Rules { action, policies }), ..Rbac::default() }
}

fn compiled(from: &Rbac) -> CompiledRbac {
    CompiledRbac::new(from, &mut |path, reason| panic!("{path}: {reason}"))
}

fn view<'a>(request: Option<&'a Head>, peer: Option<PeerNames<'a>>) -> AuthzView<'a> {
    AuthzView {
        destination: "10.1.2.3:8080".parse().unwrap(),
        direct_remote: "192.168.0.7".parse().unwrap(),
        remote: "203.0.113.9".parse().unwrap(),
        server_name: Some("b.demo"),
        peer,
        request: request.map(|r| r as _),
        metadata: None,
    }
}

fn holds(permission: Permission, principal: Principal, view: &AuthzView<'_>) -> bool {
    compiled(&rbac(RbacAction::Allow, vec![("p", policy(permission, principal))])).check(view).allowed
}

#[test]
fn permissions_follow_the_table() {
    use Permission as P;
    let head = Head::get("h", "/admin/x?y=/no").with("x-role", "ops");
    let exact = |t: &str| StringMatch::exact(t);
    let role = |v: &str| {
        P::Header(HeaderMatch {
            name: "x-role".into(),
            value: HeaderValueMatch::Text(exact(v)),
            invert: false,
            treat_missing_as_empty: false,
        })
    };
    let prefix =
        |t: &str| P::Path(StringMatch { pattern: StringPattern::Prefix(t.into()), ignore_case: false });
    // (criterion, on a request, on a bare connection)
    let table: Vec<(P, bool, bool)> = vec![
        (P::Any, true, true),
        (prefix("/admin/"), true, false),
        (P::Path(exact("/admin/x")), true, false),
        (P::Path(exact("/admin/x?y=/no")), false, false),
        (role("ops"), true, false),
        (role("dev"), false, false),
        (P::DestinationPort(8080), true, true),
        (P::DestinationPort(80), false, false),
        (P::DestinationPortRange(8080, 8081), true, true),
        (P::DestinationPortRange(8000, 8080), false, false),
        (P::DestinationPortRange(65534, 65535), false, false),
        (P::DestinationIp("10.1.0.0".parse().unwrap(), 16), true, true),
        (P::DestinationIp("10.2.0.0".parse().unwrap(), 16), false, false),
        (P::RequestedServerName(exact("b.demo")), true, true),
        (P::Not(Box::new(P::Any)), false, false),
        (P::Not(Box::new(role("ops"))), false, true),
        (P::And(vec![P::DestinationPort(8080), role("ops")]), true, false),
        (P::And(vec![P::DestinationPort(80), role("ops")]), false, false),
        (P::Or(vec![P::DestinationPort(80), role("ops")]), true, false),
        (P::Or(vec![P::DestinationPort(80), role("dev")]), false, false),
    ];
    for (permission, on_request, on_connection) in table {
        assert_eq!(
            holds(permission.clone(), Principal::Any, &view(Some(&head), None)),
            on_request,
            "{permission:?}"
        );
        assert_eq!(
            holds(permission.clone(), Principal::Any, &view(None, None)),
            on_connection,
            "{permission:?}"
        );
    }
}

#[test]
fn principals_follow_the_table() {
    use Principal as P;
    let exact = |t: &str| P::Authenticated(Some(StringMatch::exact(t)));
    let uri = names(&[SPIFFE]);
    let dns = names(&["a.test"]);
    let with_uri = PeerNames { uri_sans: &uri, dns_sans: &dns, subject: "CN=a" };
    let with_dns = PeerNames { uri_sans: &[], dns_sans: &dns, subject: "CN=a" };
    let bare = PeerNames { subject: "CN=a", ..PeerNames::default() };
    // (criterion, peers that satisfy it: URI+DNS, DNS, subject only, none)
    let table: Vec<(P, [bool; 4])> = vec![
        (P::Any, [true; 4]),
        (P::Authenticated(None), [true, true, true, false]),
        (exact(SPIFFE), [true, false, false, false]),
        (exact("a.test"), [false, true, false, false]),
        (exact("CN=a"), [false, false, true, false]),
        (exact(""), [false; 4]),
        (P::Not(Box::new(exact(SPIFFE))), [false, true, true, true]),
        (P::DirectRemoteIp("192.168.0.0".parse().unwrap(), 24), [true; 4]),
        (P::DirectRemoteIp("203.0.113.0".parse().unwrap(), 24), [false; 4]),
        (P::RemoteIp("203.0.113.9".parse().unwrap(), 32), [true; 4]),
        (P::RemoteIp("0.0.0.0".parse().unwrap(), 0), [true; 4]),
        (P::RemoteIp("::".parse().unwrap(), 0), [false; 4]),
        (P::And(vec![P::Authenticated(None), exact(SPIFFE)]), [true, false, false, false]),
        (P::Or(vec![exact("CN=a"), exact(SPIFFE)]), [true, false, true, false]),
    ];
    for (principal, expected) in table {
        let peers = [Some(with_uri), Some(with_dns), Some(bare), None];
        let got = peers.map(|peer| holds(Permission::Any, principal.clone(), &view(None, peer)));
        assert_eq!(got, expected, "{principal:?}");
    }
}

#[test]
fn actions_decide_what_a_match_means() {
    let head = Head::get("h", "/a");
    let on = |path: &str| policy(Permission::Path(StringMatch::exact(path)), Principal::Any);
    for (action, allowed_on_match, allowed_else) in
        [(RbacAction::Allow, true, false), (RbacAction::Deny, false, true), (RbacAction::Log, true, true)]
    {
        let rules = compiled(&rbac(action, vec![("z", on("/a")), ("m", on("/a")), ("b", on("/b"))]));
        let verdict = rules.check(&view(Some(&head), None));
        assert_eq!((verdict.allowed, verdict.policy), (allowed_on_match, Some("m")), "in the order of names");
        assert_eq!(verdict.log_hint, (action == RbacAction::Log).then_some(true));
        let other = Head::get("h", "/c");
        let verdict = rules.check(&view(Some(&other), None));
        assert_eq!((verdict.allowed, verdict.policy), (allowed_else, None));
        let empty = compiled(&rbac(action, Vec::new()));
        assert_eq!(empty.check(&view(Some(&head), None)).allowed, allowed_else, "no policy is no match");
    }
    assert!(compiled(&Rbac::default()).check(&view(None, None)).allowed);
}

#[test]
fn shadow_rules_are_told_but_do_not_decide() {
    let any = || policy(Permission::Any, Principal::Any);
    let mut both = rbac(RbacAction::Allow, vec![("yes", any())]);
    both.shadow_rules = rbac(RbacAction::Deny, vec![("no", any())]).rules;
    let rules = compiled(&both);
    let verdict = rules.check(&view(None, None));
    assert!(verdict.allowed);
    assert_eq!(verdict.shadow, Some(Shadow { allowed: false, policy: Some("no") }));
}

#[test]
fn a_policy_needs_a_permission_and_a_principal_that_match() {
    let yes = || Permission::Any;
    let no = || Permission::Not(Box::new(Permission::Any));
    let who = || Principal::Any;
    let nobody = || Principal::Not(Box::new(Principal::Any));
    for (permissions, principals, expected) in [
        (vec![no(), yes()], vec![nobody(), who()], true),
        (vec![no(), no()], vec![who()], false),
        (vec![yes()], vec![nobody(), nobody()], false),
    ] {
        let rules = compiled(&rbac(RbacAction::Allow, vec![("p", Policy { permissions, principals })]));
        assert_eq!(rules.check(&view(None, None)).allowed, expected);
    }
}

#[test]
fn mistakes_are_refused_with_their_paths() {
    let refusals = |from: &Rbac| {
        let mut found = Vec::new();
        CompiledRbac::new(from, &mut |path, _| found.push(path));
        found
    };
    let bad =
        |permission| refusals(&rbac(RbacAction::Allow, vec![("p", policy(permission, Principal::Any))]));
    assert_eq!(bad(Permission::And(Vec::new())), ["rules.policies[p].permissions[0].and_rules.rules"]);
    assert_eq!(
        bad(Permission::DestinationPortRange(5, 5)),
        ["rules.policies[p].permissions[0].destination_port_range"]
    );
    assert_eq!(
        bad(Permission::DestinationIp("10.0.0.0".parse().unwrap(), 33)),
        ["rules.policies[p].permissions[0].destination_ip"]
    );
    let regex = StringMatch { pattern: StringPattern::Regex("(".into()), ignore_case: false };
    assert_eq!(
        bad(Permission::Or(vec![Permission::Any, Permission::Path(regex)])),
        ["rules.policies[p].permissions[0].or_rules.rules[1].url_path.path"]
    );
    let empty = Policy { permissions: Vec::new(), principals: Vec::new() };
    assert_eq!(
        refusals(&rbac(RbacAction::Deny, vec![("p", empty)])),
        ["rules.policies[p].permissions", "rules.policies[p].principals"]
    );
    let any = || policy(Permission::Any, Principal::Any);
    assert_eq!(refusals(&rbac(RbacAction::Allow, vec![("p", any()), ("p", any())])), ["rules.policies[p]"]);
    let mut deep = Permission::Any;
    for _ in 0..100 {
        deep = Permission::Not(Box::new(deep));
    }
    assert_eq!(bad(deep).len(), 1, "nesting has a limit");
}

proptest! {
    #[test]
    fn networks_agree_with_comparing_bit_by_bit(a: u32, b: u32, length in 0u8..=32, flips in 0u32..32) {
        let near = a ^ (b >> flips.min(31));
        let network = super::Network::new(std::net::Ipv4Addr::from(a).into(), length).unwrap();
        let slow = (0..length).all(|bit| a >> (31 - bit) & 1 == near >> (31 - bit) & 1);
        prop_assert_eq!(network.contains(std::net::Ipv4Addr::from(near).into()), slow);
        prop_assert_eq!(network.contains(std::net::Ipv4Addr::from(near).to_ipv6_mapped().into()), slow);
    }
}
