//! Keys of issuers: JSON Web Key Sets. Source: RFC 7517, RFC 7518 §6, RFC 8037 §2.

use super::token::base64url;
use serde_json::Value;

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwk {
    /// Its name; empty: for tokens of any.
    pub kid: String,
    /// The one algorithm it is for; empty: any that fits its kind.
    pub alg: String,
    /// What it is.
    pub kind: KeyKind,
}

/// What a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA: modulus and exponent, big-endian.
    Rsa {
        /// Modulus.
        n: Box<[u8]>,
        /// Exponent.
        e: Box<[u8]>,
    },
    /// A point on P-256, uncompressed.
    P256(Box<[u8]>),
    /// A point on P-384, uncompressed.
    P384(Box<[u8]>),
    /// A point on P-521, uncompressed.
    P521(Box<[u8]>),
    /// Ed25519.
    Ed25519(Box<[u8]>),
}

/// Most keys of a set.
const KEYS_MAX: usize = 100;

impl Jwk {
    /// Reads a set. Keys of kinds that are not known are left out, as RFC 7517 §5 wants; a set without any other is refused.
    ///
    /// # Errors
    /// It is no set, or holds no key that can be used.
    pub fn set(text: &str) -> Result<Box<[Self]>, String> {
        let set: Value = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
        let Some(keys) = set.get("keys").and_then(Value::as_array) else {
            return Err("has no list `keys`".into());
        };
        if keys.len() > KEYS_MAX {
            return Err(format!("has more than {KEYS_MAX} keys"));
        }
        let keys: Box<[Self]> = keys.iter().filter_map(Self::one).collect();
        if keys.is_empty() { Err("has no key of a kind that is supported".into()) } else { Ok(keys) }
    }

    fn one(key: &Value) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let bytes = |name: &str| base64url(text(name)?.as_bytes());
        let point = |length: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            (x.len() == length && y.len() == length).then(|| [&[4u8][..], &x, &y].concat().into_boxed_slice())
        };
        let kind = match (text("kty")?, text("crv")) {
            ("RSA", _) => KeyKind::Rsa { n: bytes("n")?.into(), e: bytes("e")?.into() },
            ("EC", Some("P-256")) => KeyKind::P256(point(32)?),
            ("EC", Some("P-384")) => KeyKind::P384(point(48)?),
            ("EC", Some("P-521")) => KeyKind::P521(point(66)?),
            ("OKP", Some("Ed25519")) => KeyKind::Ed25519(bytes("x").filter(|x| x.len() == 32)?.into()),
            _ => return None,
        };
        let or_empty = |name: &str| text(name).unwrap_or_default().to_owned();
        Some(Self { kid: or_empty("kid"), alg: or_empty("alg"), kind })
    }

    /// Whether a token says that it is signed with this key, as far as names and algorithms tell.
    pub fn fits(&self, alg: &str, kid: &str) -> bool {
        (self.kid.is_empty() || kid.is_empty() || self.kid == kid)
            && (self.alg.is_empty() || self.alg == alg)
            && match &self.kind {
                KeyKind::Rsa { .. } => {
                    matches!(alg, "RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512")
                }
                KeyKind::P256(_) => alg == "ES256",
                KeyKind::P384(_) => alg == "ES384",
                KeyKind::P521(_) => alg == "ES512",
                KeyKind::Ed25519(_) => alg == "EdDSA",
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_unknown_kinds_left_out() {
        let set = Jwk::set(
            r#"{"keys": [{"kty": "oct", "k": "AA"}, {"kty": "RSA", "kid": "a", "alg": "RS256", "n": "AQAB", "e": "AQAB"},
            {"kty": "EC", "crv": "P-256", "x": "AQ", "y": "AQ"}]}"#,
        );
        let set = set.unwrap();
        assert_eq!(set.len(), 1);
        assert!(set[0].fits("RS256", "a") && set[0].fits("RS256", "") && !set[0].fits("RS512", "a"));
        assert!(!set[0].fits("RS256", "b"));
        assert!(Jwk::set("{}").is_err() && Jwk::set("x").is_err() && Jwk::set(r#"{"keys": []}"#).is_err());
    }
}
