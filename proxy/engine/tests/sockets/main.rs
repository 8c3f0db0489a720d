//! Sockets of a whole proxy: listeners, TLS on both sides, the TCP proxy.

mod bed;
mod listener;
mod tcp_proxy;
mod tls;
mod upstream_tls;
