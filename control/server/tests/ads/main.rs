//! The configuration feed from plan to proxy: encoded and translated back, and both ends of the protocol in memory.

mod model;
mod roundtrip;
mod world;
