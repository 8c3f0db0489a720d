use super::*;
use Action::{Create, Install, Release, Remove, Report, Start, Terminate, Withdraw};

const DRAIN: Duration = Duration::from_secs(40);

fn rules() -> Rules {
    Rules {
        uid: 1337,
        inbound: vec![(8080, 15_006)],
        outbound: None,
        dns: None,
        exclude_ports: BTreeSet::new(),
        exclude_cidrs: Vec::new(),
    }
}

fn wanted() -> Wanted {
    Wanted {
        spec: "new".into(),
        sandbox: "here".into(),
        admin: [15_000, 15_010],
        rules: Some(rules()),
        on_failure: FailureMode::Closed,
        healthy: None,
        cannot_create: false,
    }
}

fn member() -> App {
    App::Member(Box::new(wanted()))
}

fn sidecar(spec: &str, state: SidecarState) -> Sidecar {
    Sidecar {
        id: format!("id-{spec}"),
        name: format!("outrigger-{spec}"),
        spec: spec.into(),
        sandbox: "here".into(),
        instance: format!("instance-{spec}"),
        identity: ("shop".into(), "b".into()),
        admin_port: 15_000,
        host_ports: None,
        state,
    }
}

fn captured() -> Memory {
    Memory { rules: Some(Some(rules())), ..Memory::default() }
}

fn make(app: &App, sidecars: &[Sidecar], memory: &Memory) -> Plan {
    plan(app, sidecars, memory, DRAIN, Instant::now())
}

#[test]
fn new_member_is_captured_first_when_it_fails_closed() {
    let made = make(&member(), &[], &Memory::default());
    assert_eq!(made.actions, [Install(rules()), Create { admin_port: 15_000 }]);
    assert!(made.again.is_some() && !made.finished);
}

#[test]
fn new_member_is_captured_last_when_it_fails_open() {
    let open = App::Member(Box::new(Wanted { on_failure: FailureMode::Open, ..wanted() }));
    let free = Memory { rules: Some(None), ..Memory::default() };
    assert_eq!(make(&open, &[], &free).actions, [Create { admin_port: 15_000 }]);
    assert_eq!(make(&open, &[sidecar("new", SidecarState::Starting)], &free).actions, []);
    assert_eq!(make(&open, &[sidecar("new", SidecarState::Healthy)], &free).actions, [Install(rules())]);
    assert_eq!(make(&open, &[sidecar("new", SidecarState::Unhealthy)], &captured()).actions, [Release]);
}

#[test]
fn member_that_has_all_is_left_in_peace() {
    let made = make(&member(), &[sidecar("new", SidecarState::Healthy)], &captured());
    assert_eq!(made, Plan::default());
}

#[test]
fn adopted_member_has_its_rules_written_again_and_nothing_else() {
    let made = make(&member(), &[sidecar("new", SidecarState::Healthy)], &Memory::default());
    assert_eq!(made.actions, [Install(rules())]);
}

#[test]
fn upgrade_makes_before_it_breaks() {
    let old = sidecar("old", SidecarState::Healthy);
    let made = make(&member(), std::slice::from_ref(&old), &captured());
    assert_eq!(
        made.actions,
        [Create { admin_port: 15_010 }],
        "the other admin port, and the old one serves on"
    );
    for waiting in [SidecarState::Starting, SidecarState::Unhealthy] {
        let made = make(&member(), &[old.clone(), sidecar("new", waiting)], &captured());
        assert_eq!(made.actions, [], "{waiting:?}");
        assert!(made.again.is_some());
    }
    let both = [old.clone(), sidecar("new", SidecarState::Healthy)];
    assert_eq!(make(&member(), &both, &captured()).actions, [Withdraw(old.clone()), Terminate(old.clone())]);
    let mut told = captured();
    told.withdrawn.insert(old.instance.clone());
    told.signalled.insert(old.id.clone(), Instant::now());
    assert_eq!(make(&member(), &both, &told).actions, [], "it may drain");
    let late = plan(&member(), &both, &told, DRAIN, Instant::now() + DRAIN * 2);
    assert_eq!(late.actions, [Remove(old)]);
    let gone = [sidecar("old", SidecarState::Exited), both[1].clone()];
    assert_eq!(make(&member(), &gone, &told).actions, [Remove(gone[0].clone())]);
}

#[test]
fn task_that_is_told_to_end_leaves_the_registry_before_its_sidecar_drains() {
    let one = sidecar("new", SidecarState::Healthy);
    let made = make(&App::Leaving, std::slice::from_ref(&one), &captured());
    assert_eq!(made.actions, [Withdraw(one.clone()), Terminate(one.clone())]);
    let mut told = captured();
    told.withdrawn.insert(one.instance.clone());
    told.signalled.insert(one.id.clone(), Instant::now());
    assert_eq!(make(&App::Leaving, &[one], &told).actions, []);
}

#[test]
fn ended_task_leaves_nothing() {
    let one = sidecar("new", SidecarState::Healthy);
    let made = make(&App::Gone, std::slice::from_ref(&one), &captured());
    assert_eq!(made.actions, [Withdraw(one.clone()), Remove(one)]);
    assert!(!made.finished);
    assert!(make(&App::Gone, &[], &captured()).finished);
}

#[test]
fn container_that_is_no_member_any_more_is_given_back() {
    let one = sidecar("new", SidecarState::Healthy);
    let made = make(&App::Foreign, std::slice::from_ref(&one), &captured());
    assert_eq!(made.actions, [Withdraw(one.clone()), Terminate(one), Release]);
    let stranger = make(&App::Foreign, &[], &Memory::default());
    assert_eq!(
        (stranger.actions.len(), stranger.finished),
        (0, true),
        "a stranger's namespace is not entered"
    );
    let free = Memory { rules: Some(None), ..Memory::default() };
    assert!(make(&App::Foreign, &[], &free).finished);
}

#[test]
fn application_that_restarted_gets_a_sidecar_in_its_new_namespace() {
    let astray = Sidecar { sandbox: "before".into(), ..sidecar("new", SidecarState::Healthy) };
    let made = make(&member(), std::slice::from_ref(&astray), &Memory::default());
    assert_eq!(made.actions, [Remove(astray), Install(rules())]);
    assert_eq!(made.again, Some(Duration::ZERO));
}

#[test]
fn sidecar_that_ended_is_started_again() {
    for state in [SidecarState::Exited, SidecarState::Created] {
        let one = sidecar("new", state);
        assert_eq!(make(&member(), std::slice::from_ref(&one), &captured()).actions, [Start(one)]);
    }
}

#[test]
fn without_an_image_what_runs_goes_on_and_nothing_is_made() {
    let poor = App::Member(Box::new(Wanted { cannot_create: true, ..wanted() }));
    let made = make(&poor, &[sidecar("old", SidecarState::Healthy)], &captured());
    assert_eq!(made.actions, []);
    assert!(made.again.is_some());
}

#[test]
fn health_of_the_application_is_told_once_for_each_instance_that_serves() {
    let unwell = App::Member(Box::new(Wanted { healthy: Some(false), ..wanted() }));
    let fresh = sidecar("new", SidecarState::Healthy);
    let starting = sidecar("new", SidecarState::Starting);
    assert_eq!(make(&unwell, std::slice::from_ref(&starting), &captured()).actions, []);
    let made = make(&unwell, std::slice::from_ref(&fresh), &captured());
    assert_eq!(made.actions, [Report(fresh.clone(), false)]);
    let mut told = captured();
    told.told.insert(fresh.instance.clone(), false);
    assert_eq!(make(&unwell, std::slice::from_ref(&fresh), &told).actions, []);
    let well = App::Member(Box::new(Wanted { healthy: Some(true), ..wanted() }));
    assert_eq!(make(&well, std::slice::from_ref(&fresh), &told).actions, [Report(fresh.clone(), true)]);
    // Without a health check nothing is told.
    assert_eq!(make(&member(), &[fresh], &captured()).actions, []);
}
