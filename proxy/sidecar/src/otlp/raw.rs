//! A gRPC call whose message is already written.

use bytes::{Buf, BufMut};
use outrigger_api::opentelemetry::proto::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use std::time::Duration;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Sends an `ExportTraceServiceRequest` that is already in its form on the wire.
///
/// *Errors*: the collector's or the connection's.
pub(super) async fn export(channel: Channel, message: Vec<u8>, timeout: Duration) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    client.unary(request, PathAndQuery::from_static(PATH), Written).await?;
    Ok(())
}

struct Written;

impl Codec for Written {
    type Encode = Vec<u8>;
    type Decode = ExportTraceServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Written {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Written {
    type Item = ExportTraceServiceResponse;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let whole = from.copy_to_bytes(from.remaining());
        ExportTraceServiceResponse::decode(whole)
            .map(Some)
            .map_err(|error| Status::internal(format!("answer cannot be read: {error}")))
    }
}
