//! Truth tables.
