//! Towards the hosts of a cluster: connecting, TLS, pools.

pub mod pool;
