//! Sockets of a whole proxy: listeners, TLS on both sides, the TCP proxy.

// Shared by the files below, and by nothing else.
#![allow(unreachable_pub, reason = "a test has no outside; `pub` marks what a file offers to its siblings")]

mod bed;
mod capture;
mod dns;
mod listener;
mod tcp_proxy;
mod tenure;
mod tls;
mod tunnel;
mod upstream_tls;
