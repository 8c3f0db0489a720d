//! Everything in Prometheus' text exposition format.
