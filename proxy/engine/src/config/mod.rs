//! From a configuration to the running state: compile, warm, swap.
