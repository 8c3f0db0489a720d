//! Precedence tables.
