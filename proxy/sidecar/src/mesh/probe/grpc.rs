//! A call of `grpc.health.v1.Health/Check`.

use hyper_util::rt::TokioIo;
use outrigger_api::grpc::health::v1::HealthCheckRequest;
use outrigger_api::grpc::health::v1::health_check_response::ServingStatus;
use outrigger_api::grpc::health::v1::health_client::HealthClient;
use std::future::Ready;
use std::io;
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tonic::codegen::http::Uri;
use tonic::transport::Endpoint;

/// Asks about a service, or the server as a whole; SERVING is a success.
///
/// *Errors*: what was wrong, for people.
pub(super) async fn check(stream: TcpStream, service: &str) -> Result<(), String> {
    let peer = stream.peer_addr().map_err(|error| error.to_string())?;
    let endpoint = Endpoint::from_shared(format!("http://{peer}")).map_err(|error| error.to_string())?;
    let channel = endpoint.connect_with_connector(Once(Some(stream))).await;
    let channel = channel.map_err(|error| error.to_string())?;
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(channel).check(request).await.map_err(|status| status.to_string())?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(other.as_str_name().to_owned()),
    }
}

/// Gives the connection that is already there.
struct Once(Option<TcpStream>);

impl tower_service::Service<Uri> for Once {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the connection has ended");
        std::future::ready(self.0.take().map(TokioIo::new).ok_or_else(gone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_api::grpc::health::v1::HealthCheckResponse;
    use outrigger_api::grpc::health::v1::health_server::{Health, HealthServer};
    use tokio::net::TcpListener;
    use tonic::{Request, Response, Status};

    /// `up` serves, `down` does not, others are not known.
    struct Known;

    #[tonic::async_trait]
    impl Health for Known {
        async fn check(
            &self,
            asked: Request<HealthCheckRequest>,
        ) -> Result<Response<HealthCheckResponse>, Status> {
            let status = match asked.into_inner().service.as_str() {
                "" | "up" => ServingStatus::Serving,
                "down" => ServingStatus::NotServing,
                _ => return Err(Status::not_found("no such service")),
            };
            Ok(Response::new(HealthCheckResponse { status: status.into() }))
        }

        type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

        async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
            Err(Status::unimplemented(""))
        }
    }

    #[tokio::test]
    async fn only_a_service_that_serves_is_a_success() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(HealthServer::new(Known));
        tokio::spawn(server.serve_with_incoming(incoming));
        let tried = async |service: &str| check(TcpStream::connect(address).await.unwrap(), service).await;
        assert_eq!(tried("").await, Ok(()));
        assert_eq!(tried("up").await, Ok(()));
        assert_eq!(tried("down").await, Err("NOT_SERVING".to_owned()));
        assert!(tried("other").await.unwrap_err().contains("no such service"));
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        drop(silent);
        assert!(check(stream, "").await.is_err());
    }
}
