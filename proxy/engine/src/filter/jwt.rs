//! JSON Web Tokens (`envoy.filters.http.jwt_authn`).

use aws_lc_rs::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use outrigger_traffic::config::{JwtProvider, JwtRoute};
use outrigger_traffic::filter::jwt::{
    Flaw, Jwk, JwtAuthn, KeyKind, Keys, Provider, RemoteKeys, Requirement, Token, TokenPlace,
};
use outrigger_traffic::filter::{Filter, Override, RouteFilter};
use outrigger_wire::RequestHead;
use serde_json::Value;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::SystemTime;

mod keys;

pub(crate) use keys::keep_ahead;

use super::{Answer, Pending, Place, Verdict};
use crate::error::ProxyError;
use crate::exchange::{Exchange, Notes};
use crate::http::view::HeadView;

/// Largest token that is looked at, bytes; a head has a limit of its own.
const TOKEN_MAX: usize = 16 * 1024;

/// What an accepted token does to the request.
struct Accepted<'a> {
    provider: &'a JwtProvider,
    place: TokenPlace,
    /// Fields to be set.
    fields: Vec<(&'a str, Vec<u8>)>,
    /// Keys and values of metadata.
    metadata: Vec<(&'a str, Value)>,
}

/// What a token brings, when it is good.
type Brought<'a> = (Vec<(&'a str, Vec<u8>)>, Vec<(&'a str, Value)>);

/// Keys that a request waits for.
#[derive(Debug)]
pub(crate) struct Missing {
    keys: Arc<RemoteKeys>,
    asked: Asked,
}

/// Keys that were asked for during a request, and whether they came. None is asked for twice.
type Asked = Vec<(Arc<RemoteKeys>, bool)>;

/// Source: Envoy: where metadata of this filter is found.
const NAMESPACE: &str = "envoy.filters.http.jwt_authn";

/// Lets a request pass that brings the tokens it needs.
pub(super) fn on_request(
    x: &mut Exchange,
    notes: &mut Notes,
    place: &Place<'_>,
    filter: &JwtAuthn,
    settings: Option<&RouteFilter>,
) -> Verdict {
    // Nobody outside may set what tokens are to set, also where no token is needed.
    sanitize(&mut x.front.request, filter);
    judge(x, notes, place, filter, settings, Vec::new())
}

/// Waits for keys and judges again.
pub(super) async fn wait(
    x: &mut Exchange,
    notes: &mut Notes,
    place: &Place<'_>,
    index: usize,
    missing: Missing,
) -> Result<Verdict, ProxyError> {
    let Some(Filter::Jwt(filter)) = place.serving.filters().get(index).map(|filter| &filter.rules) else {
        return Err(ProxyError::Defect);
    };
    let Missing { keys, mut asked } = missing;
    let (worker, serving) = (x.front.worker().clone(), x.front.serving.clone());
    let fetch = keys::fetched(&worker, &serving.live, &serving.chain.stats, &keys);
    let came = super::guarded(x, fetch).await?;
    asked.push((keys, came));
    let slot = place.serving.filters().get(index).map(|filter| filter.slot);
    let own = place.filters.zip(slot).and_then(|(filters, slot)| filters.of(slot));
    Ok(judge(x, notes, place, filter, own.and_then(Override::settings), asked))
}

fn judge(
    x: &mut Exchange,
    notes: &mut Notes,
    place: &Place<'_>,
    filter: &JwtAuthn,
    settings: Option<&RouteFilter>,
    asked: Asked,
) -> Verdict {
    let worker = x.front.worker().clone();
    let serving = x.front.serving.clone();
    let stats = serving.stats(&worker);
    if filter.config.bypass_cors_preflight && is_preflight(&x.front.request) {
        stats.jwt_authn_cors_preflight_bypassed.inc();
        return Verdict::Next;
    }
    let needed = match settings {
        Some(RouteFilter::Jwt(JwtRoute::Disabled)) => {
            stats.jwt_authn_allowed.inc();
            return Verdict::Next;
        }
        // The compiler saw that the name is there.
        Some(RouteFilter::Jwt(JwtRoute::Requirement(name))) => match filter.named(name) {
            Some(requirement) => Some(requirement),
            None => {
                stats.jwt_authn_denied.inc();
                let text = "Wrong requirement_name. It should be in requirement_map of the filter";
                return Verdict::Answer(Answer::new(
                    403,
                    text,
                    "jwt_authn_access_denied{wrong_requirement_name}",
                ));
            }
        },
        // The same number when it is asked again.
        _ => filter.requirement(&HeadView(&x.front.request), (place.draw >> 32) as u32),
    };
    let Some(needed) = needed else {
        stats.jwt_authn_allowed.inc();
        return Verdict::Next;
    };
    let clock = keys::nanos(&worker, tokio::time::Instant::now());
    let now = worker.shared.telemetry.calendar(tokio::time::Instant::now());
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let missing = RefCell::new(None);
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let check = Check { filter, now, clock, asked: &asked, missing: &missing };
    let mut accepted = Vec::new();
    let held = check.holds(&x.front.request, needed, &mut accepted);
    if let Some(keys) = missing.take() {
        return Verdict::Wait(Pending::Jwt(Box::new(Missing { keys, asked })));
    }
    match held {
        Ok(()) => {
            for one in accepted {
                notes.reroute |= one.provider.clear_route_cache;
                for (key, value) in &one.metadata {
                    notes.learn(&x.front, NAMESPACE, key, value.clone());
                }
                apply(&mut x.front.request, one);
            }
            stats.jwt_authn_allowed.inc();
            Verdict::Next
        }
        Err(flaw) => {
            stats.jwt_authn_denied.inc();
            Verdict::Answer(refusal(x, filter, flaw))
        }
    }
}

fn is_preflight(request: &RequestHead) -> bool {
    let has = |name: &[u8]| request.fields.get(name).is_some_and(|value| !value.is_empty());
    request.method_bytes() == b"OPTIONS" && has(b"origin") && has(b"access-control-request-method")
}

fn sanitize(request: &mut RequestHead, filter: &JwtAuthn) {
    for provider in &filter.providers {
        if !provider.config.forward_payload_header.is_empty() {
            request.fields.remove(provider.config.forward_payload_header.as_bytes());
        }
        for (header, _) in &provider.config.claim_to_headers {
            request.fields.remove(header.as_bytes());
        }
    }
}

/// What the client is told. Source: Envoy; RFC 6750 §3.
fn refusal(x: &Exchange, filter: &JwtAuthn, flaw: Flaw) -> Box<Answer> {
    let status = if flaw == Flaw::AudienceNotAllowed { 403 } else { 401 };
    let text = if filter.config.strip_failure_response { "" } else { flaw.text() };
    let details = format!("jwt_authn_access_denied{{{}}}", flaw.text().replace(' ', "_"));
    let mut answer = Answer::new(status, text, details);
    let challenge = if filter.config.strip_failure_response {
        b"Bearer".to_vec()
    } else {
        let head = &x.front.request;
        let (scheme, host, path) = (head.scheme().as_bytes(), head.authority(), head.path());
        let mut realm = [b"Bearer realm=\"", scheme, b"://", host, path, b"\""].concat();
        if flaw != Flaw::Missing {
            realm.extend_from_slice(b", error=\"invalid_token\"");
        }
        realm
    };
    answer.fields.push((b"www-authenticate".as_slice().into(), challenge));
    answer
}

/// One look at a request.
struct Check<'f> {
    filter: &'f JwtAuthn,
    /// Seconds since 1970.
    now: i64,
    /// As keys have it.
    clock: u64,
    /// Keys that were asked for.
    asked: &'f [(Arc<RemoteKeys>, bool)],
    /// Keys without which nothing can be said.
    missing: &'f RefCell<Option<Arc<RemoteKeys>>>,
}

impl<'f> Check<'f> {
    /// Whether a requirement holds; notes the tokens that were accepted for it.
    fn holds(
        &self,
        request: &RequestHead,
        requirement: &Requirement,
        accepted: &mut Vec<Accepted<'f>>,
    ) -> Result<(), Flaw> {
        match requirement {
            Requirement::Provider(number, audiences) => {
                let provider = self.filter.providers.get(*number).ok_or(Flaw::UnknownIssuer)?;
                self.provider(request, provider, audiences, accepted)
            }
            Requirement::All(all) => all.iter().try_for_each(|one| self.holds(request, one, accepted)),
            Requirement::Any(any) => self.any(request, any, accepted),
            Requirement::AllowMissing => match self.every(request, accepted) {
                Err(Flaw::Missing) => Ok(()),
                other => other,
            },
            Requirement::AllowMissingOrFailed => {
                let _ = self.every(request, accepted);
                Ok(())
            }
        }
    }

    /// The first that holds. Source: Envoy: of the flaws of all, one that is about a token goes before an unknown issuer,
    /// and that before none at all.
    fn any(
        &self,
        request: &RequestHead,
        any: &[Requirement],
        accepted: &mut Vec<Accepted<'f>>,
    ) -> Result<(), Flaw> {
        let (mut flaw, mut missing_allowed, mut failure_allowed) = (Flaw::Missing, false, false);
        for one in any {
            if self.is_stuck() {
                break;
            }
            match one {
                Requirement::AllowMissing => missing_allowed = true,
                Requirement::AllowMissingOrFailed => failure_allowed = true,
                one => match self.holds(request, one, accepted) {
                    Ok(()) => return Ok(()),
                    Err(Flaw::Missing) => {}
                    Err(Flaw::UnknownIssuer) if flaw != Flaw::Missing => {}
                    Err(other) => flaw = other,
                },
            }
        }
        if failure_allowed || (missing_allowed && flaw == Flaw::Missing) { Ok(()) } else { Err(flaw) }
    }

    /// Tokens of any provider, all of which must be good.
    fn every(&self, request: &RequestHead, accepted: &mut Vec<Accepted<'f>>) -> Result<(), Flaw> {
        let (mut flaw, mut found) = (Flaw::Missing, false);
        for provider in &self.filter.providers {
            if self.is_stuck() {
                break;
            }
            match self.provider(request, provider, &[], accepted) {
                Ok(()) => found = true,
                Err(Flaw::Missing) => {}
                Err(Flaw::UnknownIssuer) if flaw != Flaw::Missing => {}
                Err(other) => flaw = other,
            }
        }
        if found { Ok(()) } else { Err(flaw) }
    }

    fn provider(
        &self,
        request: &RequestHead,
        provider: &'f Provider,
        audiences: &[String],
        accepted: &mut Vec<Accepted<'f>>,
    ) -> Result<(), Flaw> {
        let view = HeadView(request);
        let tokens = provider.tokens(&view);
        if tokens.is_empty() {
            return Err(Flaw::Missing);
        }
        let before = accepted.len();
        for (place, text) in &tokens {
            if text.len() > TOKEN_MAX {
                accepted.truncate(before);
                return Err(Flaw::BadFormat);
            }
            match self.token(provider, audiences, text) {
                Ok((fields, metadata)) => {
                    let place = (*place).clone();
                    accepted.push(Accepted { provider: &provider.config, place, fields, metadata });
                }
                Err(flaw) => {
                    accepted.truncate(before);
                    return Err(flaw);
                }
            }
        }
        Ok(())
    }

    /// Whether keys are needed before anything more can be said.
    fn is_stuck(&self) -> bool {
        self.missing.borrow().is_some()
    }

    /// The keys of an issuer.
    fn keys(&self, provider: &Provider) -> Result<Arc<[Jwk]>, Flaw> {
        let remote = match &provider.keys {
            Keys::Local(keys) => return Ok(keys.clone()),
            Keys::Remote(remote) => remote,
        };
        if let Some(keys) = remote.fresh(self.clock) {
            return Ok(keys);
        }
        match self.asked.iter().find(|(keys, _)| Arc::ptr_eq(keys, remote)) {
            // They are used although they may be too old by now for the next request.
            Some((_, true)) => remote.latest().ok_or(Flaw::KeysNotFetched),
            Some((_, false)) => Err(Flaw::KeysNotFetched),
            None => {
                self.missing.replace(Some(remote.clone()));
                Err(Flaw::KeysNotFetched)
            }
        }
    }

    fn token(&self, provider: &'f Provider, audiences: &[String], text: &[u8]) -> Result<Brought<'f>, Flaw> {
        let token = Token::read(text)?;
        token.check(provider, audiences, self.now)?;
        let keys = self.keys(provider)?;
        let mut fitting = keys.iter().filter(|key| key.fits(&token.alg, &token.kid)).peekable();
        if fitting.peek().is_none() {
            return Err(Flaw::NoKey);
        }
        if !fitting.any(|key| is_signed_with(key, &token)) {
            return Err(Flaw::VerificationFails);
        }
        let config = &provider.config;
        let mut fields = Vec::new();
        if !config.forward_payload_header.is_empty() {
            let payload = if config.pad_forward_payload_header {
                let bytes = URL_SAFE_NO_PAD.decode(token.payload).map_err(|_| Flaw::PayloadBadBase64)?;
                URL_SAFE.encode(bytes).into_bytes()
            } else {
                token.payload.to_vec()
            };
            fields.push((config.forward_payload_header.as_str(), payload));
        }
        for (header, claim) in &config.claim_to_headers {
            let value = match token.claim(claim) {
                Some(Value::String(text)) => text.clone().into_bytes(),
                Some(Value::Bool(truth)) => truth.to_string().into_bytes(),
                Some(Value::Number(number)) if number.is_i64() || number.is_u64() => {
                    number.to_string().into_bytes()
                }
                Some(nested @ (Value::Array(_) | Value::Object(_))) => {
                    base64::engine::general_purpose::STANDARD.encode(nested.to_string()).into_bytes()
                }
                _ => continue,
            };
            fields.push((header.as_str(), value));
        }
        Ok((fields, metadata(config, token)))
    }
}

/// What a token brings into the metadata.
fn metadata<'c>(config: &'c JwtProvider, token: Token<'_>) -> Vec<(&'c str, Value)> {
    let mut found = Vec::new();
    if !config.payload_in_metadata.is_empty() {
        let mut claims = token.claims;
        for name in &config.space_delimited_claims {
            if let Some(Value::String(words)) = claims.get(name) {
                let words = words.split(' ').filter(|word| !word.is_empty());
                let words = words.map(|word| Value::String(word.to_owned())).collect();
                claims.insert(name.clone(), Value::Array(words));
            }
        }
        found.push((config.payload_in_metadata.as_str(), Value::Object(claims)));
    }
    if !config.header_in_metadata.is_empty() {
        found.push((config.header_in_metadata.as_str(), Value::Object(token.head)));
    }
    found
}

/// Sets what a token says, and takes the token out of the request where it is not to be passed on.
fn apply(request: &mut RequestHead, accepted: Accepted<'_>) {
    for (name, value) in &accepted.fields {
        request.fields.set(name.as_bytes(), value);
    }
    if accepted.provider.forward {
        return;
    }
    match accepted.place {
        TokenPlace::Header(name, _) => {
            request.fields.remove(&name);
        }
        TokenPlace::Parameter(name) => {
            let path = without_parameter(request.path(), &name);
            request.set_path(&path);
        }
        // Cookies stay, as in Envoy.
        TokenPlace::Cookie(_) => {}
    }
}

/// A target without the first parameter of this name.
fn without_parameter(target: &[u8], name: &[u8]) -> Vec<u8> {
    let Some(mark) = target.iter().position(|b| *b == b'?') else { return target.to_vec() };
    let (path, query) = target.split_at(mark);
    let mut gone = false;
    let kept: Vec<&[u8]> = query
        .get(1..)
        .unwrap_or_default()
        .split(|b| *b == b'&')
        .filter(|pair| {
            let is_it = !gone
                && pair.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="));
            gone |= is_it;
            !is_it
        })
        .collect();
    let mut out = path.to_vec();
    if !kept.is_empty() {
        out.push(b'?');
        out.extend_from_slice(&kept.join(&b'&'));
    }
    out
}

/// Whether the signature is made with this key (RFC 7518 §3, RFC 8037 §3.1).
fn is_signed_with(key: &Jwk, token: &Token<'_>) -> bool {
    let plain = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
        UnparsedPublicKey::new(algorithm, key).verify(token.signed, &token.signature).is_ok()
    };
    match &key.kind {
        KeyKind::Rsa { n, e } => {
            let parameters: &RsaParameters = match token.alg.as_str() {
                "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                _ => return false,
            };
            let key = RsaPublicKeyComponents { n, e };
            key.verify(parameters, token.signed, &token.signature).is_ok()
        }
        KeyKind::P256(point) => plain(&signature::ECDSA_P256_SHA256_FIXED, point),
        KeyKind::P384(point) => plain(&signature::ECDSA_P384_SHA384_FIXED, point),
        KeyKind::P521(point) => plain(&signature::ECDSA_P521_SHA512_FIXED, point),
        KeyKind::Ed25519(point) => plain(&signature::ED25519, point),
    }
}
