//! The role of a task as a proof: a request to STS that its bearer signed and we send.
//!
//! The bearer signs `GetCallerIdentity` with its role's credentials and gives us the signature, never the credentials. We
//! build the request ourselves and send it to the one endpoint that is configured, so a bearer can choose neither where
//! it goes nor what it asks. Two signed headers tie it to its purpose:
//!
//! * `x-outrigger-audience`, this mesh's trust domain: what was signed for another mesh is no good here;
//! * `x-outrigger-csr`, the hash of the certificate request: who overhears or is handed a proof can only get a certificate
//!   for the key of its bearer, which it does not have.
//!
//! STS refuses what was signed more than a few minutes ago.
//!
//! Source: AWS Signature Version 4, "Elements of an AWS API request signature"; STS API reference, `GetCallerIdentity`.

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use outrigger_api::outrigger::v1;
use sha2::{Digest as _, Sha256};

use super::rule::{AwsRole, is_role};
use crate::outward::{self, CallError, Origin};
use crate::random::to_hex;

/// What is asked, always.
pub const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";

/// Its media type.
pub const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// See the module.
pub const AUDIENCE_HEADER: &str = "x-outrigger-audience";

/// See the module.
pub const CSR_HEADER: &str = "x-outrigger-csr";

/// Longest values of a proof, in bytes. Session tokens have a few hundred to a few thousand.
const AUTHORIZATION_BYTES_MAX: usize = 2_048;
const TOKEN_BYTES_MAX: usize = 16_384;

/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Why a role is not proven.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// No endpoint is configured.
    #[error("roles of AWS prove nothing here: --aws-sts-region is not given")]
    Off,
    /// A value that cannot be.
    #[error("{0}")]
    Malformed(&'static str),
    /// The region signed for is another one.
    #[error("the signature is for region {0:?}")]
    Region(String),
    /// A header that must be signed is not.
    #[error("{0} is not signed")]
    Unsigned(&'static str),
    /// STS did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// STS refused.
    #[error("STS answered {0}")]
    Refused(StatusCode),
    /// STS's answer names nobody with a role.
    #[error("{0:?} is not somebody with a role")]
    NoRole(String),
}

impl AwsError {
    /// Whether it may work later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Call(_) => true,
            Self::Refused(status) => status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Off | Self::Malformed(_) | Self::Region(_) | Self::Unsigned(_) | Self::NoRole(_) => false,
        }
    }
}

/// STS of one region.
pub struct AwsVerifier {
    origin: Origin,
    region: String,
}

impl AwsVerifier {
    /// Of a region; `endpoint`, where it is given, instead of AWS's own.
    ///
    /// *Errors*: an endpoint that is no URL.
    pub fn new(region: &str, endpoint: Option<&str>) -> Result<Self, CallError> {
        let own = crate::aws::endpoint("sts", region);
        let (origin, _) = Origin::parse(endpoint.unwrap_or(&own), outward::tls_of_the_web)?;
        Ok(Self { origin, region: region.to_owned() })
    }

    /// Who signed a proof for this audience and certificate request.
    ///
    /// *Errors*: [`AwsError`].
    pub async fn verify(
        &self,
        proof: &v1::AwsProof,
        audience: &str,
        csr_der: &[u8],
    ) -> Result<AwsRole, AwsError> {
        let region = check(proof)?;
        if region != self.region {
            return Err(AwsError::Region(region.to_owned()));
        }
        let value = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| AwsError::Malformed("a value that is no header's"))
        };
        let csr = to_hex(&Sha256::digest(csr_der));
        let mut request = Request::post("/").body(Full::new(Bytes::from_static(BODY.as_bytes())));
        if let Ok(request) = &mut request {
            let headers = request.headers_mut();
            headers.insert("content-type", HeaderValue::from_static(CONTENT_TYPE));
            headers.insert("x-amz-date", value(&proof.date)?);
            headers.insert("authorization", value(&proof.authorization)?);
            headers.insert(AUDIENCE_HEADER, value(audience)?);
            headers.insert(CSR_HEADER, value(&csr)?);
            if !proof.security_token.is_empty() {
                headers.insert("x-amz-security-token", value(&proof.security_token)?);
            }
        }
        let request = request.map_err(|_| AwsError::Malformed("no request can be made of it"))?;
        let answer = self.origin.call(request, ANSWER_BYTES_MAX).await?;
        if answer.status != StatusCode::OK {
            return Err(AwsError::Refused(answer.status));
        }
        let text = String::from_utf8_lossy(&answer.body);
        let arn = element(&text, "Arn").unwrap_or_default();
        role_of(arn).ok_or_else(|| AwsError::NoRole(arn.chars().take(256).collect()))
    }
}

/// Checks what is signed; the region it is signed for.
fn check(proof: &v1::AwsProof) -> Result<&str, AwsError> {
    let authorization = proof.authorization.as_str();
    if authorization.len() > AUTHORIZATION_BYTES_MAX || proof.security_token.len() > TOKEN_BYTES_MAX {
        return Err(AwsError::Malformed("a value that is too long"));
    }
    let shape = AwsError::Malformed("authorization is not of Signature Version 4");
    let Some(rest) = authorization.strip_prefix("AWS4-HMAC-SHA256 ") else { return Err(shape) };
    let part = |name: &str| rest.split(',').find_map(|part| part.trim().strip_prefix(name));
    let (Some(credential), Some(signed)) = (part("Credential="), part("SignedHeaders=")) else {
        return Err(shape);
    };
    let scope: Vec<&str> = credential.split('/').collect();
    let [_, _, region, "sts", "aws4_request"] = scope.as_slice() else {
        return Err(AwsError::Malformed("the credential's scope is not that of STS"));
    };
    let with_token = (!proof.security_token.is_empty()).then_some("x-amz-security-token");
    for name in ["host", "x-amz-date", AUDIENCE_HEADER, CSR_HEADER].into_iter().chain(with_token) {
        if !signed.split(';').any(|signed| signed == name) {
            return Err(AwsError::Unsigned(name));
        }
    }
    Ok(region)
}

/// The text of the first element of a name without attributes. STS's answer has one `Arn`, and no text of a caller's.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(content, _)| content)
}

/// The role of `arn:PARTITION:sts::ACCOUNT:assumed-role/ROLE/SESSION`. Users, root, and federated ones have none.
fn role_of(arn: &str) -> Option<AwsRole> {
    let parts: Vec<&str> = arn.split(':').collect();
    let ["arn", _, "sts", "", account, resource] = parts.as_slice() else { return None };
    let resource: Vec<&str> = resource.split('/').collect();
    let ["assumed-role", role, _] = resource.as_slice() else { return None };
    let whole = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit()) && is_role(role);
    whole.then(|| AwsRole { account: (*account).to_owned(), role: (*role).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_assumed_role_is_a_role() {
        let role = role_of("arn:aws:sts::123456789012:assumed-role/shop-cart/0123abcd").unwrap();
        assert_eq!((role.account.as_str(), role.role.as_str()), ("123456789012", "shop-cart"));
        assert!(role_of("arn:aws-cn:sts::123456789012:assumed-role/a/b").is_some());
        for other in [
            "",
            "arn:aws:iam::123456789012:user/shop-cart",
            "arn:aws:iam::123456789012:root",
            "arn:aws:iam::123456789012:assumed-role/a/b",
            "arn:aws:sts::123456789012:federated-user/a",
            "arn:aws:sts::123456789012:assumed-role/a",
            "arn:aws:sts::123456789012:assumed-role/a/b/c",
            "arn:aws:sts::12345678901:assumed-role/a/b",
            "arn:aws:sts:x:123456789012:assumed-role/a/b",
            "arn:aws:sts::123456789012:assumed-role//b",
        ] {
            assert_eq!(role_of(other), None, "{other}");
        }
    }

    #[test]
    fn signature_without_what_ties_it_to_us_is_refused_before_anything_is_sent() {
        let headers = "host;x-amz-date;x-amz-security-token;x-outrigger-audience;x-outrigger-csr";
        let proof = |scope: &str, headers: &str, token: &str| v1::AwsProof {
            authorization: format!(
                "AWS4-HMAC-SHA256 Credential=AKID/20260101/{scope}/aws4_request, SignedHeaders={headers}, Signature=00"
            ),
            date: "20260101T000000Z".into(),
            security_token: token.into(),
        };
        assert_eq!(check(&proof("eu-central-1/sts", headers, "t")).unwrap(), "eu-central-1");
        for name in headers.split(';') {
            let fewer: Vec<&str> = headers.split(';').filter(|other| *other != name).collect();
            let refused = check(&proof("eu-central-1/sts", &fewer.join(";"), "t")).unwrap_err().to_string();
            assert_eq!(refused, format!("{name} is not signed"));
        }
        assert!(check(&proof("eu-central-1/ecs", headers, "")).is_err());
        assert!(check(&v1::AwsProof { authorization: "Bearer x".into(), ..Default::default() }).is_err());
        let at_limit = "x".repeat(TOKEN_BYTES_MAX);
        assert!(check(&proof("r/sts", headers, &at_limit)).is_ok());
        assert!(check(&proof("r/sts", headers, &(at_limit + "x"))).is_err());
    }
}
