//! JSON Web Tokens: which requests pass, what they are told, and what the upstream sees.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA384, RsaEncoding,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use outrigger_testkit::{Origin, Response};
use outrigger_traffic::config::{
    Config, FilterConfig, FilterOverride, HttpFilter, JwtAuthn, JwtProvider, JwtRequirement, JwtRoute,
    RouteFilterConfig, RouteMatch,
};
use serde_json::{Value, json};

use crate::bed::{Bed, forward, host, manager, to};

fn text(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An issuer with a key of each kind.
pub(crate) struct Issuer {
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    rsa: RsaKeyPair,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        Self {
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ed: Ed25519KeyPair::generate().unwrap(),
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        }
    }

    pub(crate) fn keys(&self) -> String {
        let point = self.ec.public_key().as_ref();
        let rsa = self.rsa.public_key();
        json!({"keys": [
            {"kty": "EC", "crv": "P-256", "kid": "ec", "x": text(&point[1..33]), "y": text(&point[33..])},
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": text(self.ed.public_key())},
            {"kty": "RSA", "kid": "rsa", "n": text(rsa.modulus().big_endian_without_leading_zero()),
             "e": text(rsa.exponent().big_endian_without_leading_zero())},
        ]})
        .to_string()
    }

    fn rsa(&self, padding: &'static dyn RsaEncoding, signed: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.rsa.public_modulus_len()];
        self.rsa.sign(padding, &SystemRandom::new(), signed, &mut signature).unwrap();
        signature
    }

    pub(crate) fn token(&self, alg: &str, claims: &Value) -> String {
        let kid = match alg {
            "ES256" => "ec",
            "EdDSA" => "ed",
            _ => "rsa",
        };
        let signed =
            format!("{}.{}", text(json!({"alg": alg, "kid": kid}).to_string()), text(claims.to_string()));
        let signature = match alg {
            "ES256" => self.ec.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(signed.as_bytes()).as_ref().to_vec(),
            "RS256" => self.rsa(&RSA_PKCS1_SHA256, signed.as_bytes()),
            "PS384" => self.rsa(&RSA_PSS_SHA384, signed.as_bytes()),
            other => panic!("{other}"),
        };
        format!("{signed}.{}", text(signature))
    }
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn provider(issuer: &Issuer, name: &str) -> JwtProvider {
    JwtProvider {
        issuer: name.into(),
        audiences: vec!["us".into()],
        local_jwks: issuer.keys(),
        clock_skew: Duration::from_secs(60),
        ..JwtProvider::default()
    }
}

pub(crate) fn needs(name: &str) -> Option<JwtRequirement> {
    Some(JwtRequirement::Provider(name.into(), Vec::new()))
}

fn bed(origin: &Origin, authn: JwtAuthn, change: impl FnOnce(&mut Config)) -> Bed {
    let mut config = to(&[origin]);
    manager(&mut config).http_filters.push(HttpFilter::new("jwt", FilterConfig::Jwt(Box::new(authn))));
    change(&mut config);
    Bed::start(config)
}

pub(crate) async fn with_token(bed: &Bed, path: &str, token: &str) -> Response {
    let bearer = format!("Bearer {token}");
    bed.h1().await.request("GET", path, &[("host", "h"), ("authorization", &bearer)], b"").await.unwrap()
}

#[tokio::test]
async fn token_of_every_algorithm_passes_and_a_changed_one_does_not() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let origin = Origin::h1("one").await;
    let authn = JwtAuthn {
        providers: [("p".to_owned(), provider(&issuer, "me"))].into(),
        rules: vec![(RouteMatch::prefix("/open"), None), (RouteMatch::prefix("/"), needs("p"))],
        ..JwtAuthn::default()
    };
    let bed = bed(&origin, authn, |_| {});
    let claims = json!({"iss": "me", "aud": ["us"], "exp": now() + 100});
    for alg in ["ES256", "EdDSA", "RS256", "PS384"] {
        let response = with_token(&bed, "/", &issuer.token(alg, &claims)).await;
        assert_eq!(response.status, 200, "{alg}: {}", response.text());
        let seen = origin.seen().pop().unwrap();
        assert_eq!(seen.field("authorization"), None, "{alg}: it is not passed on");
        let forged = with_token(&bed, "/", &other.token(alg, &claims)).await;
        assert_eq!((forged.status, forged.text().as_str()), (401, "Jwt verification fails"), "{alg}");
    }
    let response = bed.h1().await.request("GET", "/open", &[("host", "h")], b"").await.unwrap();
    assert_eq!(response.status, 200);
    let before = origin.requests();
    for (token, status, text) in [
        (String::new(), 401, "Jwt is missing"),
        (issuer.token("ES256", &json!({"iss": "you", "aud": "us"})), 401, "Jwt issuer is not configured"),
        (
            issuer.token("ES256", &json!({"iss": "me", "aud": "them"})),
            403,
            "Audiences in Jwt are not allowed",
        ),
        (issuer.token("ES256", &json!({"iss": "me"})), 403, "Audiences in Jwt are not allowed"),
        (issuer.token("ES256", &json!({"iss": "me", "aud": "us", "exp": now() - 62})), 401, "Jwt is expired"),
        (
            issuer.token("ES256", &json!({"iss": "me", "aud": "us", "nbf": now() + 70})),
            401,
            "Jwt not yet valid",
        ),
    ] {
        let response = match token.as_str() {
            "" => bed.h1().await.request("GET", "/", &[("host", "h")], b"").await.unwrap(),
            token => with_token(&bed, "/", token).await,
        };
        assert_eq!((response.status, response.text().as_str()), (status, text));
        let challenge = response.field("www-authenticate").map(str::to_owned);
        let error = if text == "Jwt is missing" { "" } else { ", error=\"invalid_token\"" };
        let expected = format!("Bearer realm=\"http://h/\"{error}");
        assert_eq!(challenge, Some(expected));
    }
    assert_eq!(origin.requests(), before, "no refused request reached the origin");
    assert_eq!(bed.http_stat(|s| s.jwt_authn_denied.value()), 10);
}

#[tokio::test]
async fn claims_go_into_headers_that_no_client_can_set() {
    let issuer = Issuer::new();
    let origin = Origin::h1("one").await;
    let claimed = JwtProvider {
        forward: true,
        from_headers: vec![("x-token".into(), String::new())],
        from_params: vec!["t".into()],
        from_cookies: vec!["c".into()],
        forward_payload_header: "x-payload".into(),
        claim_to_headers: vec![("x-sub".into(), "sub".into()), ("x-level".into(), "a.b".into())],
        ..provider(&issuer, "me")
    };
    let authn = JwtAuthn {
        providers: [("p".to_owned(), claimed)].into(),
        rules: vec![(
            RouteMatch::prefix("/"),
            Some(JwtRequirement::Any(vec![
                JwtRequirement::Provider("p".into(), Vec::new()),
                JwtRequirement::AllowMissing,
            ])),
        )],
        ..JwtAuthn::default()
    };
    let bed = bed(&origin, authn, |_| {});
    let claims = json!({"iss": "me", "aud": "us", "sub": "ann", "a": {"b": 7}});
    let token = issuer.token("EdDSA", &claims);
    let (query, cookie) = (format!("/?x=1&t={token}"), format!("a=b; c={token}"));
    for (path, name, value) in
        [("/", "x-token", token.as_str()), (&query, "x-none", "1"), ("/", "cookie", &cookie)]
    {
        let headers = [("host", "h"), (name, value), ("x-sub", "root")];
        let response = bed.h1().await.request("GET", path, &headers, b"").await.unwrap();
        assert_eq!(response.status, 200, "{name}");
        let seen = origin.seen().pop().unwrap();
        assert_eq!(
            (seen.field("x-sub"), seen.field("x-level"), seen.target.as_str()),
            (Some("ann"), Some("7"), path)
        );
        assert_eq!(seen.field("x-payload"), Some(text(claims.to_string()).as_str()));
    }
    let headers = [("host", "h"), ("x-sub", "root"), ("x-payload", "e30")];
    let response = bed.h1().await.request("GET", "/", &headers, b"").await.unwrap();
    let seen = origin.seen().pop().unwrap();
    assert_eq!((response.status, seen.field("x-sub"), seen.field("x-payload")), (200, None, None));
    let bad = [("host", "h"), ("x-token", "a.b.c")];
    assert_eq!(bed.h1().await.request("GET", "/", &bad, b"").await.unwrap().status, 401, "missing, not bad");
}

#[tokio::test]
async fn route_names_what_it_needs_or_needs_nothing() {
    let issuer = Issuer::new();
    let origin = Origin::h1("one").await;
    let several = |names: [&str; 2]| names.map(|n| JwtRequirement::Provider(n.into(), Vec::new())).to_vec();
    let authn = JwtAuthn {
        providers: [("p".to_owned(), provider(&issuer, "me")), ("q".to_owned(), provider(&issuer, "you"))]
            .into(),
        rules: vec![(RouteMatch::prefix("/"), needs("p"))],
        requirements: [
            ("any".to_owned(), JwtRequirement::Any(several(["p", "q"]))),
            ("all".to_owned(), JwtRequirement::All(several(["p", "q"]))),
        ]
        .into(),
        ..JwtAuthn::default()
    };
    let bed = bed(&origin, authn, |config| {
        let named = |name: &str| JwtRoute::Requirement(name.into());
        let routes = [("/off", JwtRoute::Disabled), ("/any", named("any")), ("/all", named("all"))];
        for (path, word) in routes {
            let mut route = forward(path, "a");
            route.filters = Some([("jwt".into(), FilterOverride::with(RouteFilterConfig::Jwt(word)))].into());
            host(config).routes.insert(0, route);
        }
    });
    let mine = issuer.token("ES256", &json!({"iss": "me", "aud": "us"}));
    let yours = issuer.token("ES256", &json!({"iss": "you", "aud": "us"}));
    for (path, token, status) in [
        ("/off", "x", 200),
        ("/any", mine.as_str(), 200),
        ("/any", yours.as_str(), 200),
        ("/any", "x.y.z", 401),
        ("/all", mine.as_str(), 401),
        ("/", yours.as_str(), 401),
        ("/", mine.as_str(), 200),
    ] {
        assert_eq!(with_token(&bed, path, token).await.status, status, "{path}");
    }
}
