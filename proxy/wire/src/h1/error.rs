//! What can be wrong with an HTTP/1.1 message.

use thiserror::Error;

/// Why a message was refused. After any of these the connection's framing is lost: answer, if it is
/// a request, and close.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each message is the documentation
pub enum H1Error {
    #[error("head larger than the limit")]
    HeadTooLarge,
    #[error("more fields than the limit")]
    TooManyFields,
    #[error("request target larger than the limit")]
    UriTooLong,
    #[error("version is not HTTP/1.0 or HTTP/1.1")]
    BadVersion,
    #[error("malformed start line")]
    BadStartLine,
    #[error("invalid status code")]
    BadStatus,
    #[error("invalid request target")]
    BadTarget,
    #[error("request target form not allowed for the method")]
    TargetFormMismatch,
    #[error("invalid field name")]
    BadFieldName,
    #[error("invalid byte in a field value")]
    BadFieldValue,
    #[error("line not ended by CR LF")]
    BadLineEnd,
    #[error("host field missing")]
    MissingHost,
    #[error("more than one host field")]
    MultipleHost,
    #[error("invalid host")]
    BadHost,
    #[error("invalid content-length")]
    BadContentLength,
    #[error("more than one content-length")]
    MultipleContentLength,
    #[error("content-length together with transfer-encoding")]
    LengthAndTransferEncoding,
    #[error("transfer coding other than chunked")]
    UnsupportedTransferCoding,
    #[error("transfer-encoding not allowed here")]
    TransferEncodingNotAllowed,
    #[error("content not allowed here")]
    ContentNotAllowed,
    #[error("field name that others read as a framing field")]
    FramingLookAlike,
    #[error("invalid chunk size")]
    BadChunkSize,
    #[error("invalid byte in a chunk extension")]
    BadChunkExtension,
    #[error("chunk extensions larger than the limit")]
    ChunkExtensionTooLarge,
    #[error("chunk data not followed by CR LF")]
    BadChunkEnd,
    #[error("trailer section larger than the limit")]
    TrailersTooLarge,
    #[error("field not allowed in a trailer section")]
    ForbiddenTrailer,
    #[error("connection ended inside a message")]
    UnexpectedEof,
}

impl H1Error {
    /// Status of the local reply when a downstream sent this. An upstream that sent it gives 502,
    /// whatever the kind.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::HeadTooLarge | Self::TooManyFields | Self::TrailersTooLarge => 431,
            Self::UriTooLong => 414,
            Self::BadVersion => 505,
            Self::UnsupportedTransferCoding => 501,
            Self::ChunkExtensionTooLarge => 413,
            Self::BadStartLine
            | Self::BadStatus
            | Self::BadTarget
            | Self::TargetFormMismatch
            | Self::BadFieldName
            | Self::BadFieldValue
            | Self::BadLineEnd
            | Self::MissingHost
            | Self::MultipleHost
            | Self::BadHost
            | Self::BadContentLength
            | Self::MultipleContentLength
            | Self::LengthAndTransferEncoding
            | Self::TransferEncodingNotAllowed
            | Self::ContentNotAllowed
            | Self::FramingLookAlike
            | Self::BadChunkSize
            | Self::BadChunkExtension
            | Self::BadChunkEnd
            | Self::ForbiddenTrailer
            | Self::UnexpectedEof => 400,
        }
    }

    /// Whether a limit of ours was hit, as opposed to a malformed message.
    #[must_use]
    pub const fn is_limit(self) -> bool {
        matches!(
            self,
            Self::HeadTooLarge
                | Self::TooManyFields
                | Self::UriTooLong
                | Self::TrailersTooLarge
                | Self::ChunkExtensionTooLarge
        )
    }

    pub(super) const fn from_tokeniser(error: httparse::Error) -> Self {
        match error {
            httparse::Error::HeaderName => Self::BadFieldName,
            httparse::Error::HeaderValue => Self::BadFieldValue,
            httparse::Error::NewLine => Self::BadLineEnd,
            httparse::Error::Status => Self::BadStatus,
            httparse::Error::Token => Self::BadStartLine,
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            httparse::Error::Version => Self::BadVersion,
        }
    }
}
