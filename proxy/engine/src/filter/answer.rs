//! A filter's own answer to a request.

use std::borrow::Cow;

use crate::telemetry::ResponseFlags;

/// What a request is answered with. Requests of gRPC get the gRPC status and the body as its message.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: u16,
    /// gRPC status; `None`: the one that fits the HTTP status.
    pub(crate) grpc_status: Option<u32>,
    /// Body.
    pub(crate) body: Cow<'static, [u8]>,
    /// Its type; `None`: `text/plain`.
    pub(crate) content_type: Option<Cow<'static, str>>,
    /// Fields that are added to those of every answer.
    pub(crate) fields: Vec<(Cow<'static, [u8]>, Vec<u8>)>,
    /// The route's header edits are made on it.
    pub(crate) edited: bool,
    /// Response flags.
    pub(crate) flags: ResponseFlags,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub(crate) details: Cow<'static, str>,
}

impl Answer {
    /// An answer with a text.
    pub(crate) fn new(status: u16, body: &'static str, details: impl Into<Cow<'static, str>>) -> Box<Self> {
        Box::new(Self {
            status,
            grpc_status: None,
            body: Cow::Borrowed(body.as_bytes()),
            content_type: None,
            fields: Vec::new(),
            edited: true,
            flags: ResponseFlags::NONE,
            details: details.into(),
        })
    }

    /// The same with a response flag.
    pub(crate) fn flagged(mut self: Box<Self>, flags: ResponseFlags) -> Box<Self> {
        self.flags |= flags;
        self
    }
}
