//! From facts and wishes to what each proxy is sent.
//!
//! In reading order: [`world`] (everything a plan is made from), [`planner`] (what is asked of a
//! planner), [`istio`] (the product's, which is `outrigger-plan`), [`proxy`] (one connected
//! proxy: what it was sent, what it said), [`table`] (all of them, by identity and node id), [`publisher`] (keeps every
//! proxy's plan up to date), [`apply`] (an operator's change: checked for every proxy before it is stored) and
//! [`wait`] (until every proxy holds it).
//!
//! The xDS server's side of it is [`Publisher::connect`]: it gives a [`Subscription`] with a watch channel
//! of whole configurations, and takes back what the proxy acknowledged or rejected.

pub mod world;

pub mod planner;

pub mod istio;

pub mod virtual_ips;

pub mod proxy;

pub mod table;

pub mod publisher;

pub mod apply;

pub mod wait;

pub use apply::{Applied, ApplyError, ResourceChange};
pub use istio::IstioPlanner;
pub use planner::{Plan, Planner, Problem};
pub use proxy::ProxyStatus;
pub use publisher::{Publisher, Subscription};
pub use table::{ConnectError, Found, ProxyKey};
pub use world::{Resource, World};
