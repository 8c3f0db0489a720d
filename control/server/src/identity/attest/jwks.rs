//! Tokens of service accounts, verified here with the public keys of their issuer: no question to the cluster for each.
//!
//! ```text
//! header: alg, kid ──► key of that id (fetched, kept, fetched again when an id is new) ──► signature ──► iss, aud, exp, nbf ──► sub
//! ```
//! Against a TokenReview there is one difference: a token counts until it expires, though the pod it was made for may be
//! gone by then. What there is to gain: the cluster's API need not be reached, only where its keys are published.
//!
//! Source: RFC 7515, RFC 7517, RFC 7518 section 3, RFC 7519 section 4.1, RFC 8725; Kubernetes, "Service account issuer discovery".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rsa::PublicKeyComponents as RsaPublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, EcdsaVerificationAlgorithm, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaParameters, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;
use tokio::time::Instant;

/// Most keys of an issuer that are kept.
pub const KEYS_MAX: usize = 64;

/// How long keys count without being fetched again.
const FRESH: Duration = Duration::from_secs(300);

/// Shortest time between two fetches: a token with an id that nobody knows costs no more than that.
const FETCH_PAUSE: Duration = Duration::from_secs(10);

/// How far the clocks of issuer and this service may be apart, seconds.
const LEEWAY_SECONDS: i64 = 30;

/// Why a token is no good.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// Not a token, or one in a form that is not taken.
    #[error("not a signed token: {0}")]
    Malformed(&'static str),
    /// Signed in a way that is not taken.
    #[error("algorithm {0:?} is none of RS256, RS384, RS512, ES256 and ES384")]
    Algorithm(String),
    /// No key of this id.
    #[error("its issuer has no key with the id {0:?}")]
    Key(String),
    /// The signature is not the key's.
    #[error("its signature is not that of the key it names")]
    Signature,
    /// Somebody else's.
    #[error("it is of the issuer {0:?}")]
    Issuer(String),
    /// Not for us.
    #[error("it is not for the audience {0:?}")]
    Audience(String),
    /// Too late, or too early.
    #[error("it is not valid now")]
    Time,
}

/// Public keys of an issuer, by their ids.
#[derive(Clone, Default, Debug)]
pub struct Keys {
    by_id: BTreeMap<String, Key>,
}

#[derive(Clone, Debug)]
enum Key {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Jwk>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Jwk {
    kty: String,
    kid: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: String,
    n: String,
    e: String,
    x: String,
    y: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    /// Extensions that must be understood (RFC 7515 section 4.1.11); there is none that is.
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: i64,
    nbf: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Keys {
    /// Reads a key set. Keys of other kinds, for other purposes, or without an id are left out.
    ///
    /// *Errors*: it is none, or has too many keys.
    pub fn parse(json: &[u8]) -> Result<Self, &'static str> {
        let set: Set = serde_json::from_slice(json).map_err(|_| "not a key set")?;
        if set.keys.len() > KEYS_MAX {
            return Err("too many keys");
        }
        let usable =
            |jwk: &Jwk| jwk.purpose.as_deref().is_none_or(|purpose| purpose == "sig") && !jwk.kid.is_empty();
        let read = |jwk: Jwk| Some((jwk.kid.clone(), Key::of(&jwk)?));
        Ok(Self { by_id: set.keys.into_iter().filter(usable).filter_map(read).collect() })
    }

    /// The subject of a token of `issuer` for `audience`, at `now` (seconds since 1970).
    ///
    /// *Errors*: [`TokenError`].
    pub fn subject(&self, token: &str, issuer: &str, audience: &str, now: i64) -> Result<String, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed("no signature"))?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed("no claims"))?;
        let header: Header = part(header, "header")?;
        if header.crit.is_some() {
            return Err(TokenError::Malformed("an extension that is not known"));
        }
        let key = self.by_id.get(&header.kid).ok_or_else(|| TokenError::Key(short(&header.kid)))?;
        let signature = BASE64.decode(signature).map_err(|_| TokenError::Malformed("signature"))?;
        key.verify(&header.alg, signed.as_bytes(), &signature)?;
        // Nothing of the claims is looked at before the signature.
        let claims: Claims = part(claims, "claims")?;
        if claims.iss != issuer {
            return Err(TokenError::Issuer(short(&claims.iss)));
        }
        let ours = match &claims.aud {
            Audience::One(one) => one == audience,
            Audience::Several(all) => all.iter().any(|one| one == audience),
        };
        if !ours {
            return Err(TokenError::Audience(audience.to_owned()));
        }
        let ended = claims.exp.saturating_add(LEEWAY_SECONDS) <= now;
        let early = claims.nbf.is_some_and(|nbf| nbf.saturating_sub(LEEWAY_SECONDS) > now);
        if ended || early { Err(TokenError::Time) } else { Ok(claims.sub) }
    }
}

impl Key {
    fn of(jwk: &Jwk) -> Option<Self> {
        let bytes = |text: &str| BASE64.decode(text).ok();
        // SEC 1 section 2.3.3: an uncompressed point.
        let point = |size: usize| {
            let (x, y) = (bytes(&jwk.x)?, bytes(&jwk.y)?);
            (x.len() == size && y.len() == size).then(|| [&[4][..], &x, &y].concat())
        };
        match (jwk.kty.as_str(), jwk.crv.as_str()) {
            ("RSA", _) => Some(Self::Rsa { n: bytes(&jwk.n)?, e: bytes(&jwk.e)? }),
            ("EC", "P-256") => point(32).map(Self::P256),
            ("EC", "P-384") => point(48).map(Self::P384),
            _ => None,
        }
    }

    /// The algorithm must be one of this kind of key: a token does not choose how its key is understood (RFC 8725 section 3.1).
    fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> Result<(), TokenError> {
        let rsa = |parameters: &'static RsaParameters, n: &[u8], e: &[u8]| {
            RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
        };
        let ecdsa = |algorithm: &'static EcdsaVerificationAlgorithm, point: &[u8]| {
            UnparsedPublicKey::new(algorithm, point).verify(message, signature)
        };
        let verified = match (algorithm, self) {
            ("RS256", Self::Rsa { n, e }) => rsa(&RSA_PKCS1_2048_8192_SHA256, n, e),
            ("RS384", Self::Rsa { n, e }) => rsa(&RSA_PKCS1_2048_8192_SHA384, n, e),
            ("RS512", Self::Rsa { n, e }) => rsa(&RSA_PKCS1_2048_8192_SHA512, n, e),
            ("ES256", Self::P256(point)) => ecdsa(&ECDSA_P256_SHA256_FIXED, point),
            ("ES384", Self::P384(point)) => ecdsa(&ECDSA_P384_SHA384_FIXED, point),
            _ => return Err(TokenError::Algorithm(short(algorithm))),
        };
        verified.map_err(|_| TokenError::Signature)
    }
}

fn part<T: serde::de::DeserializeOwned>(text: &str, what: &'static str) -> Result<T, TokenError> {
    let bytes = BASE64.decode(text).map_err(|_| TokenError::Malformed(what))?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed(what))
}

fn short(text: &str) -> String {
    text.chars().take(256).collect()
}

/// Keys that are fetched when they are needed, and again when they grow old or one is missing.
#[derive(Default)]
pub struct KeyCache {
    held: tokio::sync::Mutex<Held>,
}

#[derive(Default)]
struct Held {
    keys: Option<(Arc<Keys>, Instant)>,
    tried: Option<Instant>,
}

impl KeyCache {
    /// What `look` finds in the keys; `fetch` is awaited when there are none, when they are old, or when `look` misses one
    /// (the issuer may have rotated). A fetch that fails leaves old keys in use: an issuer that is away locks nobody out.
    ///
    /// *Errors*: those of `look`, and, where there are no keys at all, of `fetch`; `Ok(Err(…))` is `look`'s.
    pub async fn with<T, E>(
        &self,
        fetch: impl Future<Output = Result<Keys, E>>,
        look: impl Fn(&Keys) -> Result<T, TokenError>,
    ) -> Result<Result<T, TokenError>, E> {
        let mut held = self.held.lock().await;
        let fresh = held.keys.clone().filter(|(_, at)| at.elapsed() < FRESH).map(|(keys, _)| keys);
        if let Some(keys) = fresh {
            let found = look(&keys);
            let missed = matches!(found, Err(TokenError::Key(_)));
            if !missed || held.tried.is_some_and(|at| at.elapsed() < FETCH_PAUSE) {
                return Ok(found);
            }
        }
        let rested = held.tried.is_none_or(|at| at.elapsed() >= FETCH_PAUSE);
        if rested || held.keys.is_none() {
            held.tried = Some(Instant::now());
            match fetch.await {
                Ok(keys) => held.keys = Some((Arc::new(keys), Instant::now())),
                Err(error) if held.keys.is_none() => return Err(error),
                Err(_) => tracing::warn!("keys of a token issuer were not fetched; the old ones stay in use"),
            }
        }
        let keys = held.keys.clone().map(|(keys, _)| keys).unwrap_or_default();
        drop(held);
        Ok(look(&keys))
    }
}

#[cfg(test)]
#[path = "jwks_tests.rs"]
mod tests;
