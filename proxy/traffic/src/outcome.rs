//! What an attempt tells the cluster afterwards.

/// How an attempt ended, seen from outlier detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The host answered with this HTTP status.
    Response(u16),
    /// A connection to the host was made. Says nothing about the application.
    Connected,
    /// No connection could be made: refused, unreachable, TLS failure, connect timeout.
    ConnectFailed,
    /// The host did not answer in time.
    Timeout,
    /// The host broke the connection or stream before its answer was whole, or spoke nonsense.
    Reset,
}

impl Outcome {
    /// The outcome of a gRPC call. Source: Envoy's mapping of gRPC to HTTP status for outlier detection.
    pub const fn grpc(status: u32) -> Self {
        Self::Response(match status {
            0 => 200,
            1 => 499,
            3 | 9 | 11 => 400,
            4 => 504,
            5 => 404,
            6 | 10 => 409,
            7 => 403,
            8 => 429,
            12 => 501,
            14 => 503,
            16 => 401,
            _ => 500,
        })
    }

    /// Whether it counts as a failed request in a host's statistics (`rq_error`).
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Response(status) => status >= 500,
            Self::Connected => false,
            Self::ConnectFailed | Self::Timeout | Self::Reset => true,
        }
    }
}
