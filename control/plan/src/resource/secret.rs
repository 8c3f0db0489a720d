//! `Secret` (core `v1`): certificates of gateways.
//!
//! Two forms are taken: `type: kubernetes.io/tls` with `tls.crt`, `tls.key` and optionally `ca.crt`, and generic ones
//! (`Opaque`) with `cert`, `key` and `cacert`, as Istio's documentation uses both. Trust roots alone are allowed.

use std::collections::BTreeMap;
use std::fmt;

use super::read::{Fields, Node};

/// A certificate with its key, and trust roots.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret {
    /// PEM, leaf first; empty: none.
    pub chain_pem: String,
    /// PEM. Never shown by `Debug`.
    pub key_pem: String,
    /// PEM; empty: none.
    pub roots_pem: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("chain_pem", &self.chain_pem)
            .field("key_pem", &"[redacted]")
            .field("roots_pem", &self.roots_pem)
            .finish()
    }
}

const KEYS: [&str; 6] = ["tls.crt", "tls.key", "ca.crt", "cert", "key", "cacert"];

impl Secret {
    pub(super) fn read(f: &Fields<'_>) -> Self {
        let kind = f.field("type").map_or_else(|| "Opaque".to_owned(), |n| n.text());
        if !matches!(kind.as_str(), "kubernetes.io/tls" | "Opaque") {
            f.problem("type", format!("{kind:?} is not supported; kubernetes.io/tls and Opaque are"));
        }
        let mut values = BTreeMap::new();
        let encoded = f.field("data").map(|n| n.entries()).unwrap_or_default();
        values.extend(encoded.into_iter().map(|(key, node)| {
            let text = String::from_utf8(decode(&node)).unwrap_or_else(|_| {
                node.problem("is not text");
                String::new()
            });
            (key, text)
        }));
        values.extend(f.texts_by_key("stringData"));
        for key in values.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            f.problem("data", format!("unknown key {key:?}; known are {}", KEYS.join(", ")));
        }
        let mut take = |a: &str, b: &str| {
            let value = values.remove(a).or_else(|| values.remove(b)).unwrap_or_default();
            if !value.is_empty() && !value.contains("-----BEGIN ") {
                f.problem("data", format!("{a} holds no PEM"));
            }
            value
        };
        let secret = Self {
            chain_pem: take("tls.crt", "cert"),
            key_pem: take("tls.key", "key"),
            roots_pem: take("ca.crt", "cacert"),
        };
        if secret.chain_pem.is_empty() != secret.key_pem.is_empty() {
            f.problem("data", "a certificate and its key come together");
        }
        if secret.chain_pem.is_empty() && secret.roots_pem.is_empty() {
            f.problem("data", "holds neither a certificate nor trust roots");
        }
        secret
    }
}

/// Reads base64 (RFC 4648 §4; line breaks are skipped, padding is optional).
pub(super) fn decode(node: &Node<'_>) -> Vec<u8> {
    let text = node.text();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0u32);
    let mut padded = false;
    for c in text.bytes().filter(|c| !c.is_ascii_whitespace()) {
        let six = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                padded = true;
                continue;
            }
            _ => 64,
        };
        if padded || six == 64 {
            node.problem("is not base64");
            return Vec::new();
        }
        bits = (bits << 6) | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).unwrap_or(0));
        }
    }
    if held == 6 {
        node.problem("is not base64");
    }
    bytes
}
