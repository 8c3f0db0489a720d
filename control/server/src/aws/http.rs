//! The HTTP client of AWS's credential providers: ours.
//!
//! Theirs would switch on features of the TLS library for every program built together with this one.

use std::sync::Arc;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::Full;
use rustls::ClientConfig;

use crate::outward::{self, CallError, Origin};

/// Largest answer, in bytes: credentials have a few kilobytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// See the module.
#[derive(Clone)]
pub struct Client {
    tls: Arc<ClientConfig>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Trusts the roots of the web.
    ///
    /// *Errors*: [`CallError::Tls`].
    pub fn new() -> Result<Self, CallError> {
        Ok(Self { tls: outward::tls_of_the_web()? })
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let user = |error: Box<dyn std::error::Error + Send + Sync>| ConnectorError::user(error);
        let request = request.try_into_http1x().map_err(|error| user(error.into()))?;
        let (mut head, body) = request.into_parts();
        let body =
            Bytes::copy_from_slice(body.bytes().ok_or_else(|| user("a body that is a stream".into()))?);
        let authority = head.uri.authority().ok_or_else(|| user("a URL without a host".into()))?;
        let url = format!("{}://{authority}", head.uri.scheme_str().unwrap_or("http"));
        let (origin, _) =
            Origin::parse(&url, || Ok(Arc::clone(&self.tls))).map_err(|error| user(error.into()))?;
        // To a server, not to a proxy: the path alone (RFC 9112 section 3.2.1).
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = path.parse().map_err(|error: ::http::uri::InvalidUri| user(error.into()))?;
        let request = ::http::Request::from_parts(head, Full::new(body));
        let answer = origin.call(request, ANSWER_BYTES_MAX).await.map_err(|error| match error {
            CallError::Timeout { .. } => ConnectorError::timeout(error.into()),
            error => ConnectorError::io(error.into()),
        })?;
        let mut response = ::http::Response::new(SdkBody::from(answer.body));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        HttpResponse::try_from(response).map_err(|error| user(error.into()))
    }
}

impl HttpConnector for Client {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.clone();
        HttpConnectorFuture::new(async move { client.send(request).await })
    }
}

impl HttpClient for Client {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}
