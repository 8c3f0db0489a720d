//! What can be wrong with an HTTP/2 connection or stream, and the code that tells the peer.

use std::fmt;

use thiserror::Error;

/// An error code of RST_STREAM and GOAWAY (RFC 9113 §7). Unknown codes are kept as they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

#[allow(missing_docs)] // the names are those of RFC 9113 §7
impl Code {
    pub const NO_ERROR: Self = Self(0x0);
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    pub const INTERNAL_ERROR: Self = Self(0x2);
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    pub const SETTINGS_TIMEOUT: Self = Self(0x4);
    pub const STREAM_CLOSED: Self = Self(0x5);
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    pub const REFUSED_STREAM: Self = Self(0x7);
    pub const CANCEL: Self = Self(0x8);
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    pub const CONNECT_ERROR: Self = Self(0xa);
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
    pub const INADEQUATE_SECURITY: Self = Self(0xc);
    pub const HTTP_1_1_REQUIRED: Self = Self(0xd);

    /// The name in RFC 9113; `UNKNOWN` for other codes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self.0 {
            0x0 => "NO_ERROR",
            0x1 => "PROTOCOL_ERROR",
            0x2 => "INTERNAL_ERROR",
            0x3 => "FLOW_CONTROL_ERROR",
            0x4 => "SETTINGS_TIMEOUT",
            0x5 => "STREAM_CLOSED",
            0x6 => "FRAME_SIZE_ERROR",
            0x7 => "REFUSED_STREAM",
            0x8 => "CANCEL",
            0x9 => "COMPRESSION_ERROR",
            0xa => "CONNECT_ERROR",
            0xb => "ENHANCE_YOUR_CALM",
            0xc => "INADEQUATE_SECURITY",
            0xd => "HTTP_1_1_REQUIRED",
            _ => "UNKNOWN",
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#x})", self.as_str(), self.0)
    }
}

/// Why a connection was ended or a stream reset by us. [`code`](Self::code) is what the peer is told.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each message is the documentation
pub enum H2Error {
    #[error("connection preface missing")]
    BadPreface,
    #[error("first frame is not SETTINGS")]
    SettingsMissing,
    #[error("frame larger than the limit")]
    FrameTooLarge,
    #[error("frame length wrong for its type")]
    BadFrameLength,
    #[error("frame on a stream it may not stand on")]
    BadStreamId,
    #[error("padding longer than the frame")]
    BadPadding,
    #[error("CONTINUATION expected or not expected")]
    BadContinuation,
    #[error("frame on an idle stream")]
    IdleStream,
    #[error("frame on a closed stream")]
    ClosedStream,
    #[error("stream depends on itself")]
    SelfDependency,
    #[error("PUSH_PROMISE not allowed")]
    PushNotAllowed,
    #[error("invalid value in SETTINGS")]
    BadSetting,
    #[error("initial window too large")]
    BadInitialWindow,
    #[error("window update of zero")]
    ZeroWindowUpdate,
    #[error("window grew beyond its limit")]
    WindowOverflow,
    #[error("more data than the window allows")]
    WindowExceeded,
    #[error("malformed header block")]
    Hpack,
    #[error("malformed message head")]
    MalformedHead,
    #[error("malformed trailers")]
    MalformedTrailers,
    #[error("data does not fit content-length")]
    ContentLengthMismatch,
    #[error("data before the head")]
    DataBeforeHead,
    #[error("too many streams")]
    StreamRefused,
    #[error("header block larger than the limit")]
    HeaderBlockTooLarge,
    #[error("too many CONTINUATION frames")]
    ContinuationFlood,
    #[error("too many SETTINGS and PING frames")]
    ControlFlood,
    #[error("too many frames without effect")]
    IdleFrameFlood,
    #[error("too many empty DATA frames")]
    EmptyDataFlood,
    #[error("most streams reset before they were answered")]
    RapidReset,
    #[error("too many reset streams still being ended")]
    ResetsPending,
    #[error("too many resets provoked")]
    ResetsProvoked,
    #[error("too many interim responses")]
    InterimFlood,
    #[error("too many control frames waiting to be sent")]
    ControlOutput,
}

impl H2Error {
    /// The code the peer is told.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::FrameTooLarge | Self::BadFrameLength => Code::FRAME_SIZE_ERROR,
            Self::ClosedStream => Code::STREAM_CLOSED,
            Self::BadInitialWindow | Self::WindowOverflow | Self::WindowExceeded => Code::FLOW_CONTROL_ERROR,
            Self::Hpack => Code::COMPRESSION_ERROR,
            Self::StreamRefused => Code::REFUSED_STREAM,
            _ if self.is_flood() => Code::ENHANCE_YOUR_CALM,
            _ => Code::PROTOCOL_ERROR,
        }
    }

    /// Whether the peer used up one of the limits of [`limit`](super::limit).
    #[must_use]
    pub const fn is_flood(self) -> bool {
        matches!(
            self,
            Self::HeaderBlockTooLarge
                | Self::ContinuationFlood
                | Self::ControlFlood
                | Self::IdleFrameFlood
                | Self::EmptyDataFlood
                | Self::RapidReset
                | Self::ResetsPending
                | Self::ResetsProvoked
                | Self::InterimFlood
                | Self::ControlOutput
        )
    }
}
