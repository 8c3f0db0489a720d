//! From an accepted socket to a filter chain: bind, accept, detect, choose, handshake, admit.

pub mod facts;

pub use facts::ConnFacts;
