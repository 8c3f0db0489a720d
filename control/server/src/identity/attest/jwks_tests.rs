use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://kubernetes.default.svc";
const NOW: i64 = 1_800_000_000;

fn key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn jwk(kid: &str, key: &EcdsaKeyPair) -> Value {
    let point = key.public_key().as_ref();
    json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..])})
}

fn keys(all: &[Value]) -> Keys {
    Keys::parse(json!({"keys": all}).to_string().as_bytes()).unwrap()
}

fn token(key: &EcdsaKeyPair, header: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64.encode(signature))
}

fn header(kid: &str) -> Value {
    json!({"alg": "ES256", "kid": kid, "typ": "JWT"})
}

fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "system:serviceaccount:shop:cart", "aud": ["cluster.local"], "exp": NOW + 600, "nbf": NOW - 5})
}

#[test]
fn token_of_the_issuer_for_us_and_now_gives_its_subject_and_no_other_does() {
    let (ours, other) = (key(), key());
    let known = keys(&[jwk("one", &ours)]);
    let look = |token: &str| known.subject(token, ISSUER, "cluster.local", NOW);
    assert_eq!(look(&token(&ours, &header("one"), &claims())).unwrap(), "system:serviceaccount:shop:cart");
    let with = |field: &str, value: Value| {
        let mut claims = claims();
        claims[field] = value;
        look(&token(&ours, &header("one"), &claims))
    };
    assert!(with("aud", json!("cluster.local")).is_ok());
    assert_eq!(with("aud", json!(["another.mesh"])), Err(TokenError::Audience("cluster.local".into())));
    assert_eq!(with("aud", json!([])), Err(TokenError::Audience("cluster.local".into())));
    assert_eq!(with("iss", json!("https://evil")), Err(TokenError::Issuer("https://evil".into())));
    assert_eq!(with("exp", json!(NOW - 30)), Err(TokenError::Time));
    assert!(with("exp", json!(NOW - 29)).is_ok() && with("nbf", json!(NOW + 30)).is_ok());
    assert_eq!(with("nbf", json!(NOW + 31)), Err(TokenError::Time));
    for gone in ["iss", "sub", "aud", "exp"] {
        assert_eq!(with(gone, Value::Null), Err(TokenError::Malformed("claims")), "{gone}");
    }
    assert_eq!(look(&token(&other, &header("one"), &claims())), Err(TokenError::Signature));
    assert_eq!(look(&token(&ours, &header("two"), &claims())), Err(TokenError::Key("two".into())));
    assert_eq!(look(&token(&ours, &json!({"alg": "ES256"}), &claims())), Err(TokenError::Key(String::new())));
    for bad in ["", "a", "a.b", "a.b.c", "....", "é.é.é"] {
        assert!(matches!(look(bad), Err(TokenError::Malformed(_))), "{bad}");
    }
}

#[test]
fn token_does_not_choose_how_its_key_is_understood() {
    let ours = key();
    let known = keys(&[jwk("one", &ours)]);
    for algorithm in ["none", "HS256", "RS256", "ES384", "es256", ""] {
        let header = json!({"alg": algorithm, "kid": "one"});
        let refused = known.subject(&token(&ours, &header, &claims()), ISSUER, "cluster.local", NOW);
        assert_eq!(refused, Err(TokenError::Algorithm(algorithm.into())), "{algorithm}");
    }
    let critical = json!({"alg": "ES256", "kid": "one", "crit": ["b64"], "b64": false});
    let refused = known.subject(&token(&ours, &critical, &claims()), ISSUER, "cluster.local", NOW);
    assert!(matches!(refused, Err(TokenError::Malformed(_))));
    // Unsigned, with the signature left out.
    let whole = token(&ours, &header("one"), &claims());
    let bare = format!("{}.", whole.rsplit_once('.').unwrap().0);
    assert_eq!(known.subject(&bare, ISSUER, "cluster.local", NOW), Err(TokenError::Signature));
}

/// RFC 7515 appendix A.2: the key and the signature of its example.
#[test]
fn rsa_signature_of_the_standards_example_is_verified() {
    let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    let known = keys(&[json!({"kty": "RSA", "kid": "rsa", "n": n, "e": "AQAB"})]);
    let Some(key) = known.by_id.get("rsa") else { panic!("left out") };
    let signed = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let signature = BASE64.decode(signature).unwrap();
    assert_eq!(key.verify("RS256", signed.as_bytes(), &signature), Ok(()));
    assert_eq!(key.verify("RS256", b"something else", &signature), Err(TokenError::Signature));
    assert_eq!(key.verify("RS384", signed.as_bytes(), &signature), Err(TokenError::Signature));
}

#[test]
fn key_set_is_read_up_to_its_limit_and_what_is_not_for_signatures_is_left_out() {
    let one = key();
    let many = |count: usize| {
        let all: Vec<Value> = (0..count).map(|i| jwk(&i.to_string(), &one)).collect();
        Keys::parse(json!({"keys": all}).to_string().as_bytes())
    };
    assert_eq!(many(KEYS_MAX).unwrap().by_id.len(), KEYS_MAX);
    assert!(many(KEYS_MAX + 1).is_err() && Keys::parse(b"{}").is_err() && Keys::parse(b"x").is_err());
    let mut other = jwk("enc", &one);
    other["use"] = json!("enc");
    let mut nameless = jwk("", &one);
    nameless["kid"] = Value::Null;
    let all = [
        other,
        json!({"kty": "oct", "kid": "o", "k": "AA"}),
        json!({"kty": "EC", "crv": "P-256", "kid": "short", "x": "AA", "y": "AA"}),
    ];
    assert_eq!(keys(&all).by_id.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_once_again_when_old_or_rotated_and_kept_while_the_issuer_is_away() {
    let (first, second) = (key(), key());
    let cache = KeyCache::default();
    let fetches = AtomicUsize::new(0);
    let ask = async |set: Result<Keys, &'static str>, token: &str| {
        let fetch = async {
            fetches.fetch_add(1, Ordering::Relaxed);
            set
        };
        cache.with(fetch, |keys| keys.subject(token, ISSUER, "cluster.local", NOW)).await
    };
    let count = || fetches.load(Ordering::Relaxed);
    let (old, new) = (token(&first, &header("1"), &claims()), token(&second, &header("2"), &claims()));
    let before = keys(&[jwk("1", &first)]);
    let after = keys(&[jwk("1", &first), jwk("2", &second)]);
    assert!(ask(Err("away"), &old).await.is_err(), "nothing is known");
    assert!(ask(Ok(before.clone()), &old).await.unwrap().is_ok());
    assert!(ask(Ok(before.clone()), &old).await.unwrap().is_ok());
    assert_eq!(count(), 2);
    // Another key, but not more than one look in a while for it.
    assert!(ask(Ok(after.clone()), &new).await.unwrap().is_err());
    assert_eq!(count(), 2);
    tokio::time::advance(FETCH_PAUSE).await;
    assert!(ask(Ok(after.clone()), &new).await.unwrap().is_ok());
    assert_eq!(count(), 3);
    tokio::time::advance(FRESH).await;
    assert!(ask(Err("away"), &new).await.unwrap().is_ok(), "the old ones stay");
    assert_eq!(count(), 4);
    tokio::time::advance(FETCH_PAUSE).await;
    assert!(ask(Ok(before), &new).await.unwrap().is_err(), "a key that was taken back is gone");
    assert_eq!(count(), 5);
}
