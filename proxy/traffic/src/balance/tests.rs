//! Distributions, health and failover.
