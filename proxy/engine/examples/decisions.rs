//! The fourth depth of embedding: decisions alone. No socket is opened here: the program says what it was asked and how
//! its attempts ended, and is told where to go, whether to try again and whom to leave alone.

#![allow(unreachable_pub, reason = "the tests run it as a module")]

#[path = "common/mod.rs"]
mod common;

use std::error::Error;
use std::net::SocketAddr;
use std::time::Instant;

use outrigger_traffic::balance::PickContext;
use outrigger_traffic::compile;
use outrigger_traffic::config::{Config, OutlierDetection, RetryOn, RetryPolicy, RouteAction};
use outrigger_traffic::outcome::Outcome;
use outrigger_traffic::outlier::Ejection;
use outrigger_traffic::retry::{AttemptResult, Decision, Ended, Reached};
use outrigger_traffic::route::Action;
use outrigger_traffic::view::{FieldView, NoFields, RequestView};

fn main() -> Result<(), Box<dyn Error>> {
    run()
}

/// A request as the decisions see it.
struct Get(&'static str);

impl FieldView for Get {
    fn header(&self, _: &[u8]) -> Option<&[u8]> {
        None
    }

    fn for_each_header(&self, _: &[u8], _: &mut dyn FnMut(&[u8])) {}
}

impl RequestView for Get {
    fn method(&self) -> &[u8] {
        b"GET"
    }

    fn scheme(&self) -> &[u8] {
        b"http"
    }

    fn authority(&self) -> &[u8] {
        b"shop.example"
    }

    fn path(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Routes a request, picks hosts, and learns from a host that fails.
pub fn run() -> Result<(), Box<dyn Error>> {
    let hosts: [SocketAddr; 2] = ["10.0.0.1:80".parse()?, "10.0.0.2:80".parse()?];
    let mut cart = common::cluster("cart", &hosts);
    cart.outlier_detection = Some(OutlierDetection {
        consecutive_5xx: 2,
        max_ejection_percent: 50,
        ..OutlierDetection::default()
    });
    let mut action = RouteAction::to("cart");
    action.retry_policy = Some(RetryPolicy {
        retry_on: RetryOn { server_error: true, ..RetryOn::default() },
        ..RetryPolicy::default()
    });
    let mut table = common::table(vec![common::route("/cart", action)]);
    table.name = "shop".into();
    let config = Config { clusters: vec![cart], route_configs: vec![table], ..Config::default() };
    let snapshot = compile(&config, None).map_err(|errors| format!("{errors:?}"))?;

    // Where does it go?
    let (request, now) = (Get("/cart/1"), Instant::now());
    let (_, table) = snapshot.tables().next().ok_or("no table")?;
    let matched = table.find(&request, 0).ok_or("no route")?;
    let Action::Forward(forward) = &matched.route.action else { return Err("not forwarded".into()) };
    let target =
        matched.route.choose(&snapshot, &request, 0).ok_or("no target")?.map_err(|_| "no cluster")?;
    let cluster = snapshot.cluster(target.cluster).ok_or("no cluster")?;
    println!("route {} goes to {}", matched.route.name, cluster.name());

    // To whom, and what if that fails?
    let mut state = 7u64;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state
    };
    let failing = cluster.pick(&mut PickContext::new(now, &mut draw)).map_err(|e| format!("{e:?}"))?;
    let mut ejected = Ejection::None;
    for _ in 0..2 {
        let _under_way = failing.start_request();
        ejected = cluster.report(&failing, Outcome::Response(503), now, 0);
    }
    println!("{} failed twice: {ejected:?}", failing.address);
    assert!(matches!(ejected, Ejection::Ejected(_)));
    let retry = forward.retry.as_ref().ok_or("no retry policy")?;
    let decision = retry.decide(
        &AttemptResult {
            request: &request,
            ended: Ended::Response { status: 503, fields: &NoFields },
            reached: Reached::Yes,
            response_started: false,
            retries_made: 0,
            unix_now: Default::default(),
            draw: draw(),
        },
        cluster.breaker(false),
    );
    let Decision::Retry { after, .. } = decision else { return Err("no retry".into()) };
    let other = cluster.pick(&mut PickContext::new(now, &mut draw)).map_err(|e| format!("{e:?}"))?;
    println!("again after {after:?}, at {}", other.address);
    assert_ne!(other.address, failing.address);
    Ok(())
}
