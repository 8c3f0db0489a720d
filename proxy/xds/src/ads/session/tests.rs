use super::*;

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn response(kind: Kind, nonce: &str, resources: &[(&str, &str)], removed: &[&str]) -> Response {
    Response {
        type_url: kind.type_url().into(),
        nonce: nonce.into(),
        resources: resources.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
        removed: removed.iter().map(|s| (*s).into()).collect(),
        version: nonce.into(),
    }
}

fn ok(resources: &[(&str, &str)]) -> Verdict {
    Verdict { accepted: resources.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(), errors: vec![] }
}

/// Wants these names, and tells the server.
fn interest(s: &mut Session, kind: Kind, names: BTreeSet<String>) -> Option<Request> {
    if s.want(kind, names) { s.catch_up(kind) } else { None }
}

#[test]
fn first_requests_ask_for_wildcard_kinds_only_until_names_are_known() {
    let mut s = Session::new(Variant::Delta);
    let kinds: Vec<_> = s.connected().into_iter().filter_map(|r| r.kind).collect();
    assert_eq!(kinds, [Kind::Cluster, Kind::Listener]);
    let r = interest(&mut s, Kind::Endpoints, names(&["a", "b"])).unwrap();
    assert_eq!(
        (r.subscribe, r.unsubscribe, r.nonce.as_str()),
        (vec!["a".to_owned(), "b".into()], vec![], "")
    );
}

#[test]
fn interest_change_sends_only_the_difference() {
    let mut s = Session::new(Variant::Delta);
    s.connected();
    interest(&mut s, Kind::Endpoints, names(&["a", "b"]));
    let r = interest(&mut s, Kind::Endpoints, names(&["b", "c"])).unwrap();
    assert_eq!((r.subscribe, r.unsubscribe), (vec!["c".to_owned()], vec!["a".to_owned()]));
    assert_eq!(interest(&mut s, Kind::Endpoints, names(&["b", "c"])), None);
}

#[test]
fn accepted_response_is_acknowledged_without_error() {
    let mut s = Session::new(Variant::Delta);
    s.connected();
    let resp = response(Kind::Cluster, "n1", &[("a", "1")], &[]);
    assert_eq!(s.received(&resp), Some((Kind::Cluster, vec![0])));
    let r = s.answer(Kind::Cluster, &resp, &[], ok(&[("a", "1")])).unwrap();
    assert_eq!((r.nonce.as_str(), r.error), ("n1", None));
}

#[test]
fn refused_resource_is_not_reported_as_held_after_reconnect() {
    let mut s = Session::new(Variant::Delta);
    s.connected();
    let first = response(Kind::Cluster, "n1", &[("a", "1"), ("b", "1")], &[]);
    s.received(&first);
    s.answer(Kind::Cluster, &first, &[], ok(&[("a", "1"), ("b", "1")]));
    let second = response(Kind::Cluster, "n2", &[("a", "2"), ("b", "2")], &[]);
    s.received(&second);
    let verdict = Verdict { accepted: vec![("a".into(), "2".into())], errors: vec!["cluster/b: bad".into()] };
    let nack = s.answer(Kind::Cluster, &second, &[], verdict).unwrap();
    assert_eq!(nack.error.as_deref(), Some("cluster/b: bad"));
    let again = s.connected().remove(0);
    assert_eq!(again.held, [("a".to_owned(), "2".to_owned()), ("b".into(), "1".into())]);
}

#[test]
fn duplicate_nonce_is_ignored() {
    let mut s = Session::new(Variant::Delta);
    s.connected();
    let resp = response(Kind::Listener, "n1", &[("l", "1")], &[]);
    assert!(s.received(&resp).is_some());
    assert!(s.received(&resp).is_none());
}

#[test]
fn resource_nobody_asked_for_is_left_out() {
    let mut s = Session::new(Variant::Delta);
    s.connected();
    interest(&mut s, Kind::Endpoints, names(&["a"]));
    let resp = response(Kind::Endpoints, "n1", &[("x", "1"), ("a", "1")], &[]);
    assert_eq!(s.received(&resp), Some((Kind::Endpoints, vec![1])));
}

#[test]
fn kind_never_asked_for_is_ignored() {
    let mut s = Session::new(Variant::Delta);
    s.connected();
    assert_eq!(s.received(&response(Kind::Secret, "n", &[("s", "1")], &[])), None);
    assert_eq!(
        s.received(&Response { type_url: "type.googleapis.com/other".into(), ..Response::default() }),
        None
    );
}

#[test]
fn state_of_the_world_removes_what_a_complete_response_leaves_out() {
    let mut s = Session::new(Variant::StateOfTheWorld);
    s.connected();
    interest(&mut s, Kind::Endpoints, names(&["a", "b"]));
    for (kind, removed) in [(Kind::Cluster, vec!["b".to_owned()]), (Kind::Endpoints, vec![])] {
        let both = response(kind, "n1", &[("a", "1"), ("b", "1")], &[]);
        s.received(&both);
        s.answer(kind, &both, &[], ok(&[("a", "1"), ("b", "1")]));
        let one = response(kind, "n2", &[("a", "2")], &[]);
        s.received(&one);
        assert_eq!(s.removals(kind, &one), removed, "{kind:?}");
    }
}

#[test]
fn state_of_the_world_repeats_version_in_force_when_it_refuses() {
    let mut s = Session::new(Variant::StateOfTheWorld);
    s.connected();
    let good = response(Kind::Cluster, "v1", &[("a", "v1")], &[]);
    s.received(&good);
    assert_eq!(s.answer(Kind::Cluster, &good, &[], ok(&[("a", "v1")])).unwrap().version, "v1");
    let bad = response(Kind::Cluster, "v2", &[("a", "v2")], &[]);
    s.received(&bad);
    let nack =
        s.answer(Kind::Cluster, &bad, &[], Verdict { accepted: vec![], errors: vec!["no".into()] }).unwrap();
    assert_eq!((nack.version.as_str(), nack.nonce.as_str(), nack.error.as_deref()), ("v1", "v2", Some("no")));
}

#[test]
fn unsubscribed_name_is_forgotten_and_fetched_again_when_wanted_again() {
    let mut s = Session::new(Variant::Delta);
    s.connected();
    interest(&mut s, Kind::RouteConfig, names(&["r"]));
    let resp = response(Kind::RouteConfig, "n1", &[("r", "1")], &[]);
    s.received(&resp);
    s.answer(Kind::RouteConfig, &resp, &[], ok(&[("r", "1")]));
    assert!(s.missing(Kind::RouteConfig).is_empty());
    interest(&mut s, Kind::RouteConfig, names(&[]));
    interest(&mut s, Kind::RouteConfig, names(&["r"]));
    assert_eq!(s.missing(Kind::RouteConfig), ["r"]);
}

#[test]
fn nack_text_is_cut_at_its_limit() {
    let mut s = Session::new(Variant::Delta);
    s.connected();
    for (len, expect) in [(NACK_TEXT_MAX, NACK_TEXT_MAX), (NACK_TEXT_MAX + 1, NACK_TEXT_MAX)] {
        let resp = response(Kind::Cluster, &len.to_string(), &[], &[]);
        s.received(&resp);
        let verdict = Verdict { accepted: vec![], errors: vec!["x".repeat(len)] };
        assert_eq!(s.answer(Kind::Cluster, &resp, &[], verdict).unwrap().error.unwrap().len(), expect);
    }
}

#[test]
fn kinds_that_are_not_carried_are_neither_asked_for_nor_taken() {
    let mut s = Session::carrying(Variant::Delta, [Kind::Cluster].into());
    let kinds: Vec<_> = s.connected().into_iter().map(|request| request.kind).collect();
    assert_eq!(kinds, [Some(Kind::Cluster)]);
    assert!(!s.want(Kind::Endpoints, names(&["a"])));
    assert_eq!(s.received(&response(Kind::Listener, "n1", &[("a", "1")], &[])), None);
    assert!(s.received(&response(Kind::Cluster, "n1", &[("a", "1")], &[])).is_some());
}
