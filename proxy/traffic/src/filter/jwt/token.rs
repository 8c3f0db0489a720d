//! A token and what is wrong with it. Source: RFC 7515 §3, RFC 7519 §4.1.

use super::Provider;
use serde_json::{Map, Value};

/// A token that was read; nothing of it is proven.
#[derive(Clone, Debug)]
pub struct Token<'a> {
    /// Its algorithm.
    pub alg: String,
    /// The name of its key; may be empty.
    pub kid: String,
    /// What is signed.
    pub signed: &'a [u8],
    /// The payload as it stands in the token.
    pub payload: &'a [u8],
    /// The head.
    pub head: Map<String, Value>,
    /// The claims.
    pub claims: Map<String, Value>,
    /// The signature.
    pub signature: Vec<u8>,
}

/// Why a request or token is not accepted. The texts are Envoy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// There is none.
    Missing,
    /// It is not of three parts.
    BadFormat,
    /// Its head is not base64url.
    HeaderBadBase64,
    /// Its head is not JSON.
    HeaderBadJson,
    /// Its head has no algorithm.
    HeaderBadAlg,
    /// Its algorithm is not known.
    AlgNotImplemented,
    /// Its payload is not base64url.
    PayloadBadBase64,
    /// Its payload is not a JSON object.
    PayloadBadJson,
    /// Its signature is not base64url.
    SignatureBadBase64,
    /// Its issuer is another one.
    UnknownIssuer,
    /// It is for others.
    AudienceNotAllowed,
    /// Its subject does not match.
    SubjectNotAllowed,
    /// It holds no longer.
    Expired,
    /// It does not hold yet.
    NotYetValid,
    /// It lives too long, or does not say how long.
    ExpirationMissing,
    /// It lives too long.
    TooLong,
    /// No key fits.
    NoKey,
    /// Its signature is wrong.
    VerificationFails,
    /// The keys could not be had.
    KeysNotFetched,
}

impl Flaw {
    /// What the client is told.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Missing => "Jwt is missing",
            Self::BadFormat => {
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
            }
            Self::HeaderBadBase64 => "Jwt header is an invalid Base64url encoded",
            Self::HeaderBadJson => "Jwt header is an invalid JSON",
            Self::HeaderBadAlg => "Jwt header [alg] field is required and must be a string",
            Self::AlgNotImplemented => "Jwt header [alg] is not supported",
            Self::PayloadBadBase64 => "Jwt payload is an invalid Base64url encoded",
            Self::PayloadBadJson => "Jwt payload is an invalid JSON",
            Self::SignatureBadBase64 => "Jwt signature is an invalid Base64url encoded",
            Self::UnknownIssuer => "Jwt issuer is not configured",
            Self::AudienceNotAllowed => "Audiences in Jwt are not allowed",
            Self::SubjectNotAllowed => "Jwt subject is not allowed",
            Self::Expired => "Jwt is expired",
            Self::NotYetValid => "Jwt not yet valid",
            Self::ExpirationMissing => "Jwt expiration is missing",
            Self::TooLong => "Jwt lifetime exceeds the configured maximum",
            Self::NoKey => "Jwks doesn't have key to match kid or alg from Jwt",
            Self::VerificationFails => "Jwt verification fails",
            Self::KeysNotFetched => "Jwks remote fetch is failed",
        }
    }
}

const ALGORITHMS: &[&str] =
    &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];

impl<'a> Token<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// It is not one.
    pub fn read(text: &'a [u8]) -> Result<Self, Flaw> {
        let mut parts = text.split(|b| *b == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Flaw::BadFormat);
        };
        if header.is_empty() || payload.is_empty() || signature.is_empty() {
            return Err(Flaw::BadFormat);
        }
        let bytes = base64url(header).ok_or(Flaw::HeaderBadBase64)?;
        let head: Value = serde_json::from_slice(&bytes).map_err(|_| Flaw::HeaderBadJson)?;
        let head = match head {
            Value::Object(head) => head,
            _ => Map::new(),
        };
        let alg = head.get("alg").and_then(Value::as_str).ok_or(Flaw::HeaderBadAlg)?;
        if !ALGORITHMS.contains(&alg) {
            return Err(Flaw::AlgNotImplemented);
        }
        // "crit" names what a receiver must know (RFC 7515 §4.1.11); nothing of it is known here.
        if head.get("crit").is_some() {
            return Err(Flaw::HeaderBadJson);
        }
        let bytes = base64url(payload).ok_or(Flaw::PayloadBadBase64)?;
        let Ok(Value::Object(claims)) = serde_json::from_slice(&bytes) else {
            return Err(Flaw::PayloadBadJson);
        };
        Ok(Self {
            alg: alg.to_owned(),
            kid: head.get("kid").and_then(Value::as_str).unwrap_or_default().to_owned(),
            signed: text.get(..header.len() + 1 + payload.len()).unwrap_or_default(),
            payload,
            head: head.clone(),
            claims,
            signature: base64url(signature).ok_or(Flaw::SignatureBadBase64)?,
        })
    }

    /// Judges the claims; `now` is in seconds since 1970, `audiences` go before the provider's where there are any.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, provider: &Provider, audiences: &[String], now: i64) -> Result<(), Flaw> {
        let config = &provider.config;
        let text = |name: &str| self.claims.get(name).and_then(Value::as_str);
        if !config.issuer.is_empty() && text("iss") != Some(config.issuer.as_str()) {
            return Err(Flaw::UnknownIssuer);
        }
        if provider.subjects.as_ref().is_some_and(|s| !s.is_match(text("sub").unwrap_or_default().as_bytes()))
        {
            return Err(Flaw::SubjectNotAllowed);
        }
        let time = |name: &str| -> Result<Option<i64>, Flaw> {
            let Some(value) = self.claims.get(name) else { return Ok(None) };
            // Fractions are cut off; what is beyond the range of the type is at its end.
            let seconds = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64));
            seconds.map(Some).ok_or(Flaw::PayloadBadJson)
        };
        let skew = i64::try_from(config.clock_skew.as_secs()).unwrap_or(i64::MAX);
        let expires = time("exp")?;
        if time("nbf")?.is_some_and(|from| now.saturating_add(skew) < from) {
            return Err(Flaw::NotYetValid);
        }
        if expires.is_some_and(|until| now.saturating_sub(skew) > until) {
            return Err(Flaw::Expired);
        }
        if config.require_expiration && expires.is_none() {
            return Err(Flaw::ExpirationMissing);
        }
        if let Some(longest) = config.max_lifetime {
            let longest = i64::try_from(longest.as_secs()).unwrap_or(i64::MAX);
            match expires {
                None => return Err(Flaw::ExpirationMissing),
                Some(until) if until.saturating_sub(now) > longest => return Err(Flaw::TooLong),
                Some(_) => {}
            }
        }
        let wanted = if audiences.is_empty() { &config.audiences } else { audiences };
        let allowed = |audience: &str| wanted.iter().any(|one| bare(one) == bare(audience));
        let fits = match self.claims.get("aud") {
            _ if wanted.is_empty() => true,
            Some(Value::String(audience)) => allowed(audience),
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).any(allowed),
            _ => false,
        };
        if fits { Ok(()) } else { Err(Flaw::AudienceNotAllowed) }
    }

    /// A claim; dots lead into nested ones.
    pub fn claim(&self, path: &str) -> Option<&Value> {
        let mut parts = path.split('.');
        let mut value = self.claims.get(parts.next()?)?;
        for part in parts {
            value = value.get(part)?;
        }
        Some(value)
    }
}

/// An audience without scheme and trailing slash, as Envoy compares them.
fn bare(audience: &str) -> &str {
    let rest =
        audience.strip_prefix("https://").or_else(|| audience.strip_prefix("http://")).unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// Base64url without padding (RFC 7515 §2); `None` where the text is not that.
pub(super) fn base64url(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4 + 3);
    let (mut bits, mut count) = (0u32, 0u32);
    for byte in text {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count & 0xff) as u8);
        }
    }
    // A rest of six bits cannot be, and bits that are left over must be zero.
    (count < 6 && bits & ((1 << count) - 1) == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_vectors() {
        for (text, bytes) in
            [("", Some(&b""[..])), ("Zg", Some(b"f")), ("Zm8", Some(b"fo")), ("Zm9v", Some(b"foo"))]
        {
            assert_eq!(base64url(text.as_bytes()).as_deref(), bytes, "{text}");
        }
        for text in ["Z", "Zh", "Zg==", "Z+", "Zm9 v"] {
            assert_eq!(base64url(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_token_is_told_apart() {
        let of = |text: &str| Token::read(text.as_bytes()).err();
        assert_eq!(of("a.b"), Some(Flaw::BadFormat));
        assert_eq!(of("a.b.c.d"), Some(Flaw::BadFormat));
        assert_eq!(of("!.e30.c"), Some(Flaw::HeaderBadBase64));
        assert_eq!(of("e30.e30.AA"), Some(Flaw::HeaderBadAlg));
        // {"alg":"none"}
        assert_eq!(of("eyJhbGciOiJub25lIn0.e30."), Some(Flaw::BadFormat));
        assert_eq!(of("eyJhbGciOiJub25lIn0.e30.AA"), Some(Flaw::AlgNotImplemented));
        // {"alg":"ES256"}
        assert_eq!(of("eyJhbGciOiJFUzI1NiJ9.!.AA"), Some(Flaw::PayloadBadBase64));
        assert_eq!(of("eyJhbGciOiJFUzI1NiJ9.W10.AA"), Some(Flaw::PayloadBadJson));
        assert_eq!(of("eyJhbGciOiJFUzI1NiJ9.e30.!"), Some(Flaw::SignatureBadBase64));
        assert_eq!(of("eyJhbGciOiJFUzI1NiJ9.e30.AA"), None);
    }
}
