//! Signed calls to the ECS API: AWS JSON 1.1 over HTTP, paced, and tried again with full jitter.
//!
//! Five operations are called, each a JSON object there and back, so the API's own client library (a quarter of a million
//! lines) is not taken; credentials and signatures are AWS's crates' (docs/adr/0018).
//!
//! Source: AWS JSON 1.1 protocol (Smithy), the ECS API reference.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::aws::{Credentials, CredentialsError};
use crate::outward::{self, CallError, Origin};
use crate::source::backoff::Backoff;
use crate::source::catalog::Sink;
use crate::source::settings::EcsSettings;

/// Largest answer, in bytes. A hundred tasks, with ten containers each, are below a megabyte.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Tries of one call. With the back-off's steps that is about two minutes.
pub const ATTEMPTS_MAX: u32 = 12;

/// Prefix of the operations' names.
const TARGET: &str = "AmazonEC2ContainerServiceV20141113";

/// Why a call failed for good.
#[derive(Debug, thiserror::Error)]
pub enum EcsError {
    /// No credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No answer.
    #[error("{operation}: {source}")]
    Call {
        /// What was called.
        operation: &'static str,
        /// Why.
        source: CallError,
    },
    /// AWS refused.
    #[error("{operation}: {code}: {message}")]
    Refused {
        /// What was called.
        operation: &'static str,
        /// Its name for it.
        code: String,
        /// Its words for it.
        message: String,
    },
    /// An answer that is not understood.
    #[error("{operation}: the answer is not understood: {source}")]
    Answer {
        /// What was called.
        operation: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// The request could not be signed.
    #[error("{operation}: not signed: {reason}")]
    Signature {
        /// What was to be called.
        operation: &'static str,
        /// Why.
        reason: String,
    },
    /// More than [`super::TASKS_MAX`].
    #[error("more than {} tasks", super::TASKS_MAX)]
    TooMany,
}

impl EcsError {
    /// Whether AWS asks for fewer calls.
    fn is_throttling(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if THROTTLED.contains(&code.as_str()))
    }

    /// Whether the same call may work later.
    fn is_passing(&self) -> bool {
        match self {
            Self::Call { source, .. } => {
                !matches!(source, CallError::Url(_) | CallError::Tls(_) | CallError::TooLarge { .. })
            }
            Self::Refused { code, .. } => self.is_throttling() || PASSING.contains(&code.as_str()),
            Self::Credentials(_) | Self::Answer { .. } | Self::Signature { .. } | Self::TooMany => false,
        }
    }
}

/// Names of "too many calls" (AWS: error retries and exponential backoff).
const THROTTLED: [&str; 8] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "SlowDown",
];

/// Names of failures of AWS's own.
const PASSING: [&str; 5] =
    ["ServerException", "InternalFailure", "InternalServerError", "ServiceUnavailable", "RequestTimeout"];

/// The ECS API of one region.
pub struct Client {
    origin: Origin,
    path: String,
    region: String,
    pub(super) credentials: Credentials,
    pace: Pace,
}

impl Client {
    /// Of these settings. Nothing is called yet.
    ///
    /// *Errors*: an endpoint or a CA file that cannot be used.
    pub fn new(settings: &EcsSettings) -> Result<Self, CallError> {
        let own = crate::aws::endpoint("ecs", &settings.region);
        let url = settings.endpoint.as_deref().unwrap_or(&own);
        let (origin, path) = Origin::parse(url, || outward::tls_of_file(settings.ca_file.as_deref()))?;
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let credentials = Credentials::of_environment(&settings.region);
        let pace = Pace::new(settings.calls_per_second);
        Ok(Self { origin, path, region: settings.region.clone(), credentials, pace })
    }

    /// Calls until it works, AWS refuses for good, or [`ATTEMPTS_MAX`] tries failed.
    ///
    /// *Errors*: [`EcsError`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        input: &Value,
        sink: &Sink,
    ) -> Result<T, EcsError> {
        let mut backoff = Backoff::default();
        loop {
            self.pace.wait().await;
            let error = match self.call_once(operation, input).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.is_throttling() {
                sink.throttled();
            }
            let wait = backoff.after_failure(fastrand::f64());
            if !error.is_passing() || backoff.failures() >= ATTEMPTS_MAX {
                return Err(error);
            }
            tracing::debug!(operation, %error, ?wait, "call to ecs is made again");
            tokio::time::sleep(wait).await;
        }
    }

    async fn call_once<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        input: &Value,
    ) -> Result<T, EcsError> {
        let body = Bytes::from(input.to_string());
        let request = self.signed(operation, body).await?;
        let answer = self.origin.call(request, ANSWER_BYTES_MAX).await;
        let answer = answer.map_err(|source| EcsError::Call { operation, source })?;
        if answer.status != StatusCode::OK {
            let (code, message) = refusal(answer.status, &answer.headers, &answer.body);
            if is_about_credentials(&code) {
                self.credentials.forget();
            }
            return Err(EcsError::Refused { operation, code, message });
        }
        let understood =
            serde_json::from_slice(&answer.body).map(without_null).and_then(serde_json::from_value);
        understood.map_err(|source| EcsError::Answer { operation, source })
    }

    async fn signed(&self, operation: &'static str, body: Bytes) -> Result<Request<Full<Bytes>>, EcsError> {
        let failed = |reason: String| EcsError::Signature { operation, reason };
        let identity = self.credentials.current().await?.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("ecs")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| failed(error.to_string()))?
            .into();
        let target = format!("{TARGET}.{operation}");
        let headers = [
            ("host", self.origin.authority()),
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", target.as_str()),
        ];
        let scheme = if self.origin.has_tls() { "https" } else { "http" };
        let url = format!("{scheme}://{}{}", self.origin.authority(), self.path);
        let signable = SignableRequest::new("POST", url, headers.into_iter(), SignableBody::Bytes(&body))
            .map_err(|error| failed(error.to_string()))?;
        let signed = sign(signable, &params).map_err(|error| failed(error.to_string()))?;
        let (instructions, _) = signed.into_parts();
        let mut request = Request::post(self.path.as_str());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(Full::new(body)).map_err(|error| failed(error.to_string()))?;
        instructions.apply_to_request_http1x(&mut request);
        Ok(request)
    }
}

/// A field that is `null` is as one that is absent.
pub fn without_null(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(|field| *field = without_null(field.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_null(item.take())),
        _ => {}
    }
    value
}

/// The name and the words of a refusal. The name may come with the service's namespace before it and a URL behind it.
fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> (String, String) {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let of_header = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
    let of_body = value.get("__type").or_else(|| value.get("code")).and_then(Value::as_str);
    let code = of_body.or(of_header).unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default();
    let code = match code {
        "" if status == StatusCode::TOO_MANY_REQUESTS => "TooManyRequestsException".to_owned(),
        "" if status.is_server_error() => "ServiceUnavailable".to_owned(),
        "" => status.to_string(),
        code => code.to_owned(),
    };
    let message = value.get("message").or_else(|| value.get("Message")).and_then(Value::as_str);
    (code, message.unwrap_or_default().to_owned())
}

fn is_about_credentials(code: &str) -> bool {
    ["ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException", "InvalidClientTokenId"]
        .contains(&code)
}

/// Spaces calls out: never more than so many in a second.
struct Pace {
    gap: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    fn new(calls_per_second: u32) -> Self {
        Self { gap: Duration::from_secs(1) / calls_per_second.max(1), next: Mutex::new(None) }
    }

    async fn wait(&self) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let at = next.map_or(now, |at| at.max(now));
            *next = at.checked_add(self.gap);
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_is_named_whatever_its_form() {
        let none = HeaderMap::new();
        let named = |body: &str| refusal(StatusCode::BAD_REQUEST, &none, body.as_bytes()).0;
        assert_eq!(
            named(r#"{"__type":"com.amazonaws.ecs#ClusterNotFoundException"}"#),
            "ClusterNotFoundException"
        );
        assert_eq!(
            named(r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#),
            "ThrottlingException"
        );
        assert_eq!(named("<html>"), "400 Bad Request");
        let mut headers = HeaderMap::new();
        headers.insert("x-amzn-errortype", "ServerException:http://x".parse().unwrap());
        assert_eq!(refusal(StatusCode::INTERNAL_SERVER_ERROR, &headers, b"").0, "ServerException");
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, &none, b"").0, "ServiceUnavailable");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_spaced_out_however_many_wait() {
        let pace = Pace::new(20);
        let began = Instant::now();
        for _ in 0..21 {
            pace.wait().await;
        }
        assert_eq!(began.elapsed().as_millis(), 1_000);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        pace.wait().await;
        pace.wait().await;
        assert_eq!(began.elapsed().as_millis(), 50, "a pause saves up nothing");
    }
}
