//! What a failure looks like: a status and `{"error": {"code", "message", "problems"}}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::identity::AuthorityError;
use crate::identity::host::HostError;
use crate::identity::join_token::JoinError;
use crate::publish::{ApplyError, Problem};
use crate::store::StoreError;

/// Every way a request can fail.
#[derive(Debug)]
pub enum ApiError {
    /// No valid token.
    Unauthorized,
    /// A valid token that does not open this.
    Forbidden,
    /// There is no such thing.
    NotFound(String),
    /// The request makes no sense.
    Invalid(String),
    /// The resources would not be accepted.
    Unacceptable(Vec<Problem>),
    /// Somebody else was faster, or something is under way already.
    Conflict(String),
    /// A limit.
    TooLarge(String),
    /// Took too long.
    Timeout,
    /// Our fault; the reason is in the log.
    Internal,
}

impl ApiError {
    /// Status, code and message. The one table.
    fn row(&self) -> (StatusCode, &'static str, String) {
        match self {
            Self::Unauthorized => {
                (StatusCode::UNAUTHORIZED, "unauthorized", "a valid bearer token is needed".to_owned())
            }
            Self::Forbidden => {
                (StatusCode::FORBIDDEN, "forbidden", "this token's role may only look".to_owned())
            }
            Self::NotFound(what) => (StatusCode::NOT_FOUND, "not_found", format!("{what} does not exist")),
            Self::Invalid(reason) => (StatusCode::BAD_REQUEST, "invalid", reason.clone()),
            Self::Unacceptable(problems) => {
                let text = format!("refused: {} problem(s); nothing was changed", problems.len());
                (StatusCode::UNPROCESSABLE_ENTITY, "refused", text)
            }
            Self::Conflict(reason) => (StatusCode::CONFLICT, "conflict", reason.clone()),
            Self::TooLarge(reason) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", reason.clone()),
            Self::Timeout => (StatusCode::GATEWAY_TIMEOUT, "timeout", "took too long".to_owned()),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "failed; the service's log says why".to_owned(),
            ),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code, message) = self.row();
        let problems = match &self {
            Self::Unacceptable(problems) => problems.as_slice(),
            _ => &[],
        };
        let body = json!({"error": {"code": code, "message": message, "problems": problems}});
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = http::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(http::header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::Conflict { .. } => Self::Conflict(error.to_string()),
            StoreError::Key { .. } => Self::Invalid(error.to_string()),
            StoreError::Limit { .. } => Self::TooLarge(error.to_string()),
            StoreError::Backend(source) => {
                tracing::error!(%error, %source, "store");
                Self::Internal
            }
            StoreError::InUse | StoreError::Corrupt { .. } => {
                tracing::error!(%error, "store");
                Self::Internal
            }
        }
    }
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Invalid(problems) => Self::Unacceptable(problems),
            ApplyError::NotFound(key) => Self::NotFound(key.to_string()),
            ApplyError::Store(error) => error.into(),
            ApplyError::Aborted => Self::Internal,
        }
    }
}

impl From<JoinError> for ApiError {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Uses | JoinError::Grant(_) | JoinError::Identity(_) => {
                Self::Invalid(error.to_string())
            }
            JoinError::Store(error) => error.into(),
            JoinError::Unknown | JoinError::Expired | JoinError::UsedUp | JoinError::Random(_) => {
                tracing::error!(%error, "join token");
                Self::Internal
            }
        }
    }
}

impl From<HostError> for ApiError {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Name(_) => Self::Invalid(error.to_string()),
            HostError::TooMany => Self::TooLarge(error.to_string()),
            HostError::Unknown(name) => Self::NotFound(format!("host {name} that may join")),
            HostError::Store(error) => error.into(),
        }
    }
}

impl From<AuthorityError> for ApiError {
    fn from(error: AuthorityError) -> Self {
        match error {
            AuthorityError::Rotate(reason) => Self::Conflict(reason.to_string()),
            AuthorityError::File { .. }
            | AuthorityError::Corrupt { .. }
            | AuthorityError::Generate(_)
            | AuthorityError::Random(_)
            | AuthorityError::ForeignIdentity { .. } => {
                tracing::error!(%error, "certificate authority");
                Self::Internal
            }
        }
    }
}
