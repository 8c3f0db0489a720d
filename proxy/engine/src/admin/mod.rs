//! The administration interface: readiness, statistics, configuration as held, drain.
