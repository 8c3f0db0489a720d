//! What the agent needs to know of the sidecar's image.

use std::collections::HashMap;

/// Label of the image that says what its proxy can take from redirection: `inbound`, `outbound`, `dns`, separated by spaces.
pub const CAPTURES: &str = "outrigger.io/captures";

/// What the proxy of an image can serve when it is redirected. Every proxy can serve inbound ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    /// Connections to any destination: it asks the kernel for the original one.
    pub outbound: bool,
    /// DNS questions.
    pub dns: bool,
}

/// An image on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Its digest: the same name may be another image tomorrow.
    pub id: String,
    /// What its label says.
    pub captures: Captures,
}

impl Image {
    /// From what docker says.
    pub fn new(id: String, labels: &HashMap<String, String>) -> Self {
        let has = |what: &str| {
            labels.get(CAPTURES).is_some_and(|text| text.split_whitespace().any(|word| word == what))
        };
        Self { id, captures: Captures { outbound: has("outbound"), dns: has("dns") } }
    }
}
