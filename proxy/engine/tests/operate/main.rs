//! Operating a proxy: applying configurations, administration, metrics, logs, traces, draining. Whole proxies on loopback.

mod access_log;
mod admin;
mod apply;
mod exposition;
mod metrics;
mod reference;
mod support;
mod trace;
