//! A cluster in a storm: virtual time, seeded randomness, a shadow model that knows what must hold.
//!
//! Requests are picked, permitted, failed, reported and retried while hosts break and heal, endpoints come and go,
//! configurations are swapped and sweeps run. A failing run prints its seed; the same seed gives the same run.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used,
    reason = "what is unexpected in a test ends it"
)]

use outrigger_traffic::balance::{PickContext, PickError};
use outrigger_traffic::breaker::{Limited, Permit};
use outrigger_traffic::cluster::{Cluster, Host, HostId, InFlight};
use outrigger_traffic::config::{
    self, ClusterDiscovery, Config, Endpoint, Endpoints, Fraction, LbPolicy, LocalityEndpoints,
    OutlierDetection, RetryBudget, RetryOn, Thresholds,
};
use outrigger_traffic::outcome::Outcome;
use outrigger_traffic::outlier::Ejection;
use outrigger_traffic::retry::{AttemptResult, Decision, Ended, Reached, ResetKind, RetryPolicy};
use outrigger_traffic::view::{FieldView, NoFields, RequestView};
use outrigger_traffic::{Snapshot, compile};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

struct Request(&'static str);

impl FieldView for Request {
    fn header(&self, _lower: &[u8]) -> Option<&[u8]> {
        None
    }
    fn for_each_header(&self, _lower: &[u8], _f: &mut dyn FnMut(&[u8])) {}
}

impl RequestView for Request {
    fn method(&self) -> &[u8] {
        self.0.as_bytes()
    }
    fn scheme(&self) -> &[u8] {
        b"http"
    }
    fn authority(&self) -> &[u8] {
        b"h"
    }
    fn path(&self) -> &[u8] {
        b"/"
    }
}

/// A request under way.
struct Exchange {
    request: Request,
    retries: u32,
    tried: Vec<HostId>,
    host: Arc<Host>,
    _in_flight: InFlight,
    _request_permit: Permit,
    _retry_permit: Option<Permit>,
}

struct Storm {
    rng: fastrand::Rng,
    now: Instant,
    config: Config,
    snapshot: Snapshot,
    retry: RetryPolicy,
    open: Vec<Exchange>,
    /// Shadow: the ports that exist, and those that fail.
    ports: BTreeSet<u16>,
    broken: BTreeSet<u16>,
    /// Shadow: identity by address, for as long as the address stays.
    ids: HashMap<u16, HostId>,
    trace: DefaultHasher,
    seen: BTreeMap<&'static str, u32>,
}

const MAX_REQUESTS: u32 = 20;
const RULE: RetryBudget = RetryBudget { budget: Fraction::from_percent(25), min_retry_concurrency: 2 };

fn endpoints(ports: &BTreeSet<u16>) -> Endpoints {
    let endpoints = ports
        .iter()
        .map(|p| Endpoint { weight: 1 + u32::from(p % 3), ..Endpoint::at(([10, 0, 0, 1], *p).into()) })
        .collect();
    Endpoints {
        cluster_name: "c".into(),
        localities: vec![LocalityEndpoints { endpoints, ..LocalityEndpoints::default() }],
        overprovisioning_factor: None,
    }
}

fn wanted(policy: LbPolicy, timeout_ms: u64) -> config::Cluster {
    let mut cluster = config::Cluster::new("c", ClusterDiscovery::Eds { service_name: String::new() });
    cluster.lb_policy = policy;
    cluster.connect_timeout = Duration::from_millis(timeout_ms);
    cluster.circuit_breakers.default =
        Thresholds { max_requests: MAX_REQUESTS, retry_budget: Some(RULE), ..Thresholds::default() };
    cluster.outlier_detection = Some(OutlierDetection {
        consecutive_5xx: 3,
        max_ejection_percent: 40,
        ..OutlierDetection::default()
    });
    cluster
}

impl Storm {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let policy = match rng.u8(0..3) {
            0 => LbPolicy::RoundRobin,
            1 => LbPolicy::Random,
            _ => LbPolicy::least_request(),
        };
        let ports: BTreeSet<u16> = (1..=6).collect();
        let config = Config {
            clusters: vec![wanted(policy, 5000)],
            endpoints: vec![endpoints(&ports)],
            ..Config::default()
        };
        let retry = config::RetryPolicy {
            retry_on: RetryOn { server_error: true, connect_failure: true, ..RetryOn::default() },
            num_retries: 3,
            ..config::RetryPolicy::default()
        };
        let snapshot = compile(&config, None).unwrap();
        Self {
            rng,
            now: Instant::now(),
            config,
            snapshot,
            retry: RetryPolicy::new(&retry).unwrap(),
            open: Vec::new(),
            ports,
            broken: BTreeSet::new(),
            ids: HashMap::new(),
            trace: DefaultHasher::new(),
            seen: BTreeMap::new(),
        }
    }

    fn cluster(&self) -> Arc<Cluster> {
        self.snapshot.clusters().next().unwrap().1.clone()
    }

    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
        what.hash(&mut self.trace);
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.u64(1..200));
        match self.rng.u32(0..100) {
            0..40 => self.begin(),
            40..88 => self.end(),
            88..92 => {
                let port = self.rng.u16(1..=9);
                if !self.broken.remove(&port) {
                    self.broken.insert(port);
                }
            }
            92..95 => self.change_endpoints(),
            95..97 => self.swap(),
            _ => {
                let sweep = self.cluster().sweep(self.now, &mut || 0);
                if sweep.returned > 0 {
                    self.note("returned");
                }
            }
        }
        self.check();
    }

    fn begin(&mut self) {
        let request = Request(if self.rng.bool() { "GET" } else { "POST" });
        match self.cluster().breaker(false).try_request() {
            Ok(permit) => self.attempt(request, 0, Vec::new(), permit, None),
            Err(full) => {
                assert_eq!(full, Limited::Requests);
                assert_eq!(self.open.len(), MAX_REQUESTS as usize, "refused below the limit");
                self.note("breaker full");
            }
        }
    }

    fn attempt(
        &mut self,
        request: Request,
        retries: u32,
        mut tried: Vec<HostId>,
        request_permit: Permit,
        retry_permit: Option<Permit>,
    ) {
        let cluster = self.cluster();
        let now = self.now;
        let rng = &mut self.rng;
        let mut draw = || rng.u64(..);
        let mut context = PickContext::new(now, &mut draw);
        (context.avoid, context.attempts_max) = (&tried, 3);
        let host = match cluster.pick(&mut context) {
            Ok(host) => host,
            Err(error) => {
                assert_eq!(error, PickError::NoHosts);
                assert!(self.ports.is_empty(), "no host though there are endpoints");
                return self.note("no hosts");
            }
        };
        let port = host.address.port();
        assert!(self.ports.contains(&port), "picked {port}, which is gone");
        assert!(!host.is_ejected() || cluster.hosts().is_panicking(), "picked a host that is out");
        port.hash(&mut self.trace);
        tried.push(host.id);
        let in_flight = host.start_request();
        self.open.push(Exchange {
            request,
            retries,
            tried,
            host,
            _in_flight: in_flight,
            _request_permit: request_permit,
            _retry_permit: retry_permit,
        });
        self.note("attempt");
    }

    fn end(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let at = self.rng.usize(0..self.open.len());
        let Exchange { request, retries, tried, host, _in_flight, _request_permit, _retry_permit } =
            self.open.swap_remove(at);
        drop(_in_flight);
        let broken = self.broken.contains(&host.address.port());
        let (outcome, ended, reached) = match (broken, self.rng.u8(0..3)) {
            (false, _) => {
                (Outcome::Response(200), Ended::Response { status: 200, fields: &NoFields }, Reached::Yes)
            }
            (true, 0) => {
                (Outcome::Response(503), Ended::Response { status: 503, fields: &NoFields }, Reached::Yes)
            }
            (true, 1) => (Outcome::Reset, Ended::Reset(ResetKind::Remote), Reached::Maybe),
            (true, _) => (Outcome::ConnectFailed, Ended::Reset(ResetKind::ConnectFailed), Reached::No),
        };
        let cluster = self.cluster();
        let before = cluster.hosts().hosts().iter().filter(|h| h.is_ejected()).count();
        if let Ejection::Ejected(_) = cluster.report(&host, outcome, self.now, self.rng.u32(..)) {
            let all = cluster.hosts().hosts().len();
            assert!(before == 0 || (before + 1) * 100 <= 40 * all, "{before} of {all} were out already");
            self.note("ejected");
        }
        // The permit of the attempt that ended goes first: a retry of a retry holds one permit, not two.
        drop(_retry_permit);
        let allowed = cluster.breaker(false).limit(Limited::Retries);
        let result = AttemptResult {
            request: &request,
            ended,
            reached,
            response_started: false,
            retries_made: retries,
            unix_now: Duration::ZERO,
            draw: self.rng.u64(..),
        };
        match self.retry.decide(&result, cluster.breaker(false)) {
            Decision::Retry { after, permit, .. } => {
                assert!(broken && retries < 3 && after < Duration::from_millis(250));
                assert!(request.0 == "GET" || reached == Reached::No, "a POST was sent twice");
                assert!(cluster.breaker(false).active(Limited::Retries) <= allowed, "over the retry budget");
                self.note("retry");
                self.attempt(request, retries + 1, tried, _request_permit, Some(permit));
            }
            Decision::No(why) => self.note(why.as_str()),
        }
    }

    fn change_endpoints(&mut self) {
        let port = self.rng.u16(1..=9);
        if !self.ports.remove(&port) {
            self.ports.insert(port);
        }
        let new = endpoints(&self.ports);
        self.config.endpoints = vec![new.clone()];
        self.cluster().set_endpoints(&new).unwrap();
        self.note("endpoints");
    }

    fn swap(&mut self) {
        if self.rng.bool() {
            self.config.clusters[0].connect_timeout += Duration::from_millis(1);
        }
        self.snapshot = compile(&self.config, Some(&self.snapshot)).unwrap();
        self.note("swap");
    }

    /// What holds at all times.
    fn check(&mut self) {
        let cluster = self.cluster();
        let breaker = cluster.breaker(false);
        assert_eq!(breaker.active(Limited::Requests) as usize, self.open.len(), "requests leak");
        let retrying = self.open.iter().filter(|e| e._retry_permit.is_some()).count();
        assert_eq!(breaker.active(Limited::Retries) as usize, retrying, "retries leak");
        let hosts = cluster.hosts();
        let ports: BTreeSet<u16> = hosts.hosts().iter().map(|h| h.address.port()).collect();
        assert_eq!(ports, self.ports);
        for host in hosts.hosts() {
            let port = host.address.port();
            let open = self.open.iter().filter(|e| e.host.id == host.id).count();
            assert_eq!(host.live.requests_active.load(Relaxed) as usize, open, "in flight at {port}");
            let known = *self.ids.entry(port).or_insert(host.id);
            assert_eq!(known, host.id, "{port} changed its identity");
        }
        self.ids.retain(|port, _| ports.contains(port));
    }
}

#[test]
fn a_storm_breaks_no_promise_and_repeats_itself() {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..60 {
        let run = |seed| {
            let mut storm = Storm::new(seed);
            for _ in 0..1_500 {
                storm.step();
            }
            (storm.trace.finish(), storm.seen)
        };
        println!("seed {seed}");
        let (trace, counts) = run(seed);
        if seed % 10 == 0 {
            assert_eq!(trace, run(seed).0, "the same seed gave another run");
        }
        counts.into_iter().for_each(|(what, n)| *seen.entry(what).or_default() += n);
    }
    // A simulation in which something never happened proves nothing about it.
    for what in ["attempt", "breaker full", "ejected", "returned", "retry", "endpoints", "swap"] {
        assert!(seen.get(what).is_some_and(|n| *n > 10), "{what} was hardly seen: {seen:?}");
    }
    for what in ["too many retries are under way", "the number of retries is used up"] {
        assert!(seen.contains_key(what), "{what} was never seen: {seen:?}");
    }
}
