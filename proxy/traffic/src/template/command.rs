//! The command operators that are known.

/// One operator. The name in a text stands in each variant's documentation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// `REQ(X?Y)`, `REQ_WITHOUT_QUERY(X?Y)`: a request header, else another. Names in lower case.
    RequestHeader {
        /// First choice; may be a pseudo-header.
        name: Box<str>,
        /// Second choice.
        fallback: Option<Box<str>>,
        /// Cut at the question mark.
        without_query: bool,
    },
    /// `PATH(WQ:ORIG_OR_PATH)`: the path.
    Path {
        /// With its query (`WQ`, the default; `NQ` is without).
        query: bool,
        /// Which path.
        source: PathSource,
    },
    /// `QUERY_PARAM(X)`: the first query parameter of that name, as it was sent.
    QueryParam(Box<str>),
    /// `QUERY_PARAMS(ORIG)`: the query.
    QueryParams,
    /// `RESP(X?Y)`.
    ResponseHeader {
        /// First choice.
        name: Box<str>,
        /// Second choice.
        fallback: Option<Box<str>>,
    },
    /// `TRAILER(X?Y)`: a response trailer.
    ResponseTrailer {
        /// First choice.
        name: Box<str>,
        /// Second choice.
        fallback: Option<Box<str>>,
    },
    /// `START_TIME`, `START_TIME(format)`: strftime with Envoy's `%f` family; default RFC 3339 with milliseconds.
    StartTime(Option<Box<str>>),
    /// `EMIT_TIME`, `EMIT_TIME(format)`: when the line is written.
    EmitTime(Option<Box<str>>),
    /// `COMMON_DURATION(FROM:TO:PRECISION)`: between two moments of a request.
    CommonDuration {
        /// The earlier one.
        from: Moment,
        /// The later one.
        to: Moment,
        /// In which unit.
        unit: TimeUnit,
    },
    /// `ENVIRONMENT(X)`: an environment variable of the proxy.
    Environment(Box<str>),
    /// `GRPC_STATUS`, `GRPC_STATUS(format)`, `GRPC_STATUS_NUMBER`.
    GrpcStatus(GrpcStatusFormat),
    /// `DOWNSTREAM_REMOTE_ADDRESS`, `…_WITHOUT_PORT`, `DOWNSTREAM_REMOTE_PORT`: after x-forwarded-for.
    DownstreamRemoteAddress(AddressPart),
    /// `DOWNSTREAM_DIRECT_REMOTE_ADDRESS…`: of the connection.
    DownstreamDirectRemoteAddress(AddressPart),
    /// `DOWNSTREAM_LOCAL_ADDRESS…`.
    DownstreamLocalAddress(AddressPart),
    /// `UPSTREAM_HOST`; `UPSTREAM_REMOTE_ADDRESS…`: the host's address.
    UpstreamRemoteAddress(AddressPart),
    /// `UPSTREAM_LOCAL_ADDRESS…`.
    UpstreamLocalAddress(AddressPart),
    /// `UPSTREAM_HOST_NAME`: the host's name, else its address.
    UpstreamHostName,
    /// `UPSTREAM_HOST_NAME_WITHOUT_PORT`: the host's name, else its address without port.
    UpstreamHostNameWithoutPort,
    /// `UPSTREAM_CONNECTION_POOL_READY_DURATION`: until there was a connection, ms.
    UpstreamConnectionPoolReadyDuration,
    /// `UPSTREAM_PEER_ISSUER`.
    UpstreamPeerIssuer,
    /// `UPSTREAM_PEER_DNS_SAN`.
    UpstreamPeerDnsSan,
    /// `UPSTREAM_CLUSTER`: the name in metrics.
    UpstreamCluster,
    /// `UPSTREAM_CLUSTER_RAW`: the name in the configuration.
    UpstreamClusterRaw,
    /// `UPSTREAM_REQUEST_ATTEMPT_COUNT`.
    UpstreamRequestAttemptCount,
    /// `UPSTREAM_TRANSPORT_FAILURE_REASON`.
    UpstreamTransportFailureReason,
    /// `UPSTREAM_PROTOCOL`.
    UpstreamProtocol,
    /// `UPSTREAM_TLS_VERSION`.
    UpstreamTlsVersion,
    /// `UPSTREAM_TLS_CIPHER`.
    UpstreamTlsCipher,
    /// `UPSTREAM_PEER_URI_SAN`.
    UpstreamPeerUriSan,
    /// `UPSTREAM_PEER_SUBJECT`.
    UpstreamPeerSubject,
    /// `RESPONSE_CODE`.
    ResponseCode,
    /// `RESPONSE_CODE_DETAILS`.
    ResponseCodeDetails,
    /// `CONNECTION_TERMINATION_DETAILS`.
    ConnectionTerminationDetails,
    /// `RESPONSE_FLAGS`: short codes.
    ResponseFlags,
    /// `RESPONSE_FLAGS_LONG`: names.
    ResponseFlagsLong,
    /// `BYTES_RECEIVED`: body bytes.
    BytesReceived,
    /// `BYTES_SENT`: body bytes.
    BytesSent,
    /// `REQUEST_HEADERS_BYTES`.
    RequestHeadersBytes,
    /// `RESPONSE_HEADERS_BYTES`.
    ResponseHeadersBytes,
    /// `DURATION`: from the first byte of the request to the last of the response, ms.
    Duration,
    /// `REQUEST_DURATION`: to the last byte of the request, ms.
    RequestDuration,
    /// `REQUEST_TX_DURATION`: to the last byte of the request sent upstream, ms.
    RequestTxDuration,
    /// `RESPONSE_DURATION`: to the first byte of the upstream's response, ms.
    ResponseDuration,
    /// `RESPONSE_TX_DURATION`: from the first byte of the upstream's response to the last sent downstream, ms.
    ResponseTxDuration,
    /// `PROTOCOL`: `HTTP/1.1`, `HTTP/2`.
    Protocol,
    /// `REQUESTED_SERVER_NAME`: SNI.
    RequestedServerName,
    /// `ROUTE_NAME`.
    RouteName,
    /// `FILTER_CHAIN_NAME`.
    FilterChainName,
    /// `LISTENER_NAME`.
    ListenerName,
    /// `ACCESS_LOG_TYPE`.
    AccessLogType,
    /// `CONNECTION_ID`.
    ConnectionId,
    /// `STREAM_ID`: the request id.
    StreamId,
    /// `HOSTNAME`: of the proxy.
    Hostname,
    /// `TRACE_ID`.
    TraceId,
    /// `SPAN_ID`.
    SpanId,
    /// `LOCAL_REPLY_BODY`.
    LocalReplyBody,
    /// `DOWNSTREAM_TLS_VERSION`.
    DownstreamTlsVersion,
    /// `DOWNSTREAM_TLS_CIPHER`.
    DownstreamTlsCipher,
    /// `DOWNSTREAM_TLS_SESSION_ID`.
    DownstreamTlsSessionId,
    /// `DOWNSTREAM_PEER_URI_SAN`.
    DownstreamPeerUriSan,
    /// `DOWNSTREAM_PEER_DNS_SAN`.
    DownstreamPeerDnsSan,
    /// `DOWNSTREAM_PEER_SUBJECT`.
    DownstreamPeerSubject,
    /// `DOWNSTREAM_PEER_ISSUER`.
    DownstreamPeerIssuer,
    /// `DOWNSTREAM_PEER_SERIAL`.
    DownstreamPeerSerial,
    /// `DOWNSTREAM_PEER_FINGERPRINT_256`: hex.
    DownstreamPeerFingerprint256,
    /// `DOWNSTREAM_LOCAL_URI_SAN`.
    DownstreamLocalUriSan,
    /// `DOWNSTREAM_LOCAL_SUBJECT`.
    DownstreamLocalSubject,
    /// `DOWNSTREAM_TRANSPORT_FAILURE_REASON`.
    DownstreamTransportFailureReason,
    /// `DYNAMIC_METADATA(NAMESPACE:KEY…)`: what filters learned, a text as it is and everything else as JSON.
    DynamicMetadata(Box<[Box<str>]>),
}

/// Which path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathSource {
    /// The one before it was rewritten (`x-envoy-original-path`).
    Original,
    /// The one as it is.
    Current,
    /// The one before it was rewritten, else the one as it is.
    OriginalOrCurrent,
}

/// A moment of a request. Source: Envoy: `%COMMON_DURATION%`; moments of connecting are not told apart here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// `DS_RX_BEG`: first byte from downstream.
    DownstreamReceiveBegin,
    /// `DS_RX_END`: last byte from downstream.
    DownstreamReceiveEnd,
    /// `US_TX_BEG`: first byte to upstream.
    UpstreamSendBegin,
    /// `US_TX_END`: last byte to upstream.
    UpstreamSendEnd,
    /// `US_RX_BEG`: first byte from upstream.
    UpstreamReceiveBegin,
    /// `US_RX_END`: last byte from upstream.
    UpstreamReceiveEnd,
    /// `DS_TX_BEG`: first byte to downstream.
    DownstreamSendBegin,
    /// `DS_TX_END`: last byte to downstream.
    DownstreamSendEnd,
}

/// In which unit a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeUnit {
    /// `ms`.
    Milliseconds,
    /// `us`.
    Microseconds,
    /// `ns`.
    Nanoseconds,
}

/// Which part of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressPart {
    /// `address:port`.
    Both,
    /// The address.
    WithoutPort,
    /// The port.
    Port,
}

/// How a gRPC status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GrpcStatusFormat {
    /// `PermissionDenied`.
    Camel,
    /// `PERMISSION_DENIED`.
    Snake,
    /// `7`.
    Number,
}

impl Command {
    /// The command of an operator.
    ///
    /// # Errors
    /// An unknown name, an argument that is missing, superfluous or wrong.
    pub fn parse(name: &str, argument: Option<&str>) -> Result<Self, String> {
        if let Some(command) = with_argument(name, argument)? {
            return Ok(command);
        }
        let command = plain(name).or_else(|| address(name));
        match (command, argument) {
            (Some(command), None) => Ok(command),
            (Some(_), Some(_)) => Err(format!("command operator `%{name}%` takes no argument")),
            (None, _) => Err(format!("command operator `%{name}%` is not supported")),
        }
    }
}

fn with_argument(name: &str, argument: Option<&str>) -> Result<Option<Command>, String> {
    let headers = || -> Result<(Box<str>, Option<Box<str>>), String> {
        let text = argument.unwrap_or_default();
        let (first, second) = match text.split_once('?') {
            Some((first, second)) => (first, Some(second)),
            None => (text, None),
        };
        if first.is_empty() || second.is_some_and(str::is_empty) {
            return Err(format!("command operator `%{name}%` needs a header name"));
        }
        Ok((first.to_ascii_lowercase().into(), second.map(|s| s.to_ascii_lowercase().into())))
    };
    Ok(Some(match name {
        "REQ" | "REQUEST_HEADER" | "REQ_WITHOUT_QUERY" => {
            let (first, fallback) = headers()?;
            Command::RequestHeader { name: first, fallback, without_query: name == "REQ_WITHOUT_QUERY" }
        }
        "RESP" | "RESPONSE_HEADER" => {
            let (first, fallback) = headers()?;
            Command::ResponseHeader { name: first, fallback }
        }
        "TRAILER" | "RESPONSE_TRAILER" => {
            let (first, fallback) = headers()?;
            Command::ResponseTrailer { name: first, fallback }
        }
        "PATH" => path(argument)?,
        "QUERY_PARAM" => match argument {
            Some(parameter) if !parameter.is_empty() => Command::QueryParam(parameter.into()),
            _ => return Err("command operator `%QUERY_PARAM%` needs the name of a parameter".into()),
        },
        "QUERY_PARAMS" => match argument {
            Some("ORIG") => Command::QueryParams,
            _ => {
                return Err("command operator `%QUERY_PARAMS%` is supported as `%QUERY_PARAMS(ORIG)%`".into());
            }
        },
        "COMMON_DURATION" => common_duration(argument.unwrap_or_default())?,
        "EMIT_TIME" => Command::EmitTime(argument.filter(|a| !a.is_empty()).map(Into::into)),
        "DYNAMIC_METADATA" => match argument {
            Some(path) if !path.is_empty() && !path.split(':').any(str::is_empty) => {
                Command::DynamicMetadata(path.split(':').map(Into::into).collect())
            }
            _ => return Err("command operator `%DYNAMIC_METADATA%` needs a namespace and keys".into()),
        },
        "START_TIME" => Command::StartTime(argument.filter(|a| !a.is_empty()).map(Into::into)),
        "ENVIRONMENT" => match argument {
            Some(variable) if !variable.is_empty() => Command::Environment(variable.into()),
            _ => return Err("command operator `%ENVIRONMENT%` needs the name of a variable".into()),
        },
        "GRPC_STATUS" => Command::GrpcStatus(match argument {
            None | Some("" | "CAMEL_STRING") => GrpcStatusFormat::Camel,
            Some("SNAKE_STRING") => GrpcStatusFormat::Snake,
            Some("NUMBER") => GrpcStatusFormat::Number,
            Some(other) => return Err(format!("command operator `%GRPC_STATUS%` has no format `{other}`")),
        }),
        _ => return Ok(None),
    }))
}

fn path(argument: Option<&str>) -> Result<Command, String> {
    let (query, source) =
        argument.unwrap_or_default().split_once(':').unwrap_or((argument.unwrap_or_default(), ""));
    let query = match query {
        "" | "WQ" => true,
        "NQ" => false,
        other => return Err(format!("command operator `%PATH%` knows WQ and NQ, not `{other}`")),
    };
    let source = match source {
        "" | "ORIG_OR_PATH" => PathSource::OriginalOrCurrent,
        "ORIG" => PathSource::Original,
        "PATH" => PathSource::Current,
        other => {
            return Err(format!(
                "command operator `%PATH%` knows ORIG, PATH and ORIG_OR_PATH, not `{other}`"
            ));
        }
    };
    Ok(Command::Path { query, source })
}

fn common_duration(argument: &str) -> Result<Command, String> {
    let mut parts = argument.split(':');
    let mut moment = || -> Result<Moment, String> {
        Ok(match parts.next().unwrap_or_default() {
            "DS_RX_BEG" => Moment::DownstreamReceiveBegin,
            "DS_RX_END" => Moment::DownstreamReceiveEnd,
            "US_TX_BEG" => Moment::UpstreamSendBegin,
            "US_TX_END" => Moment::UpstreamSendEnd,
            "US_RX_BEG" => Moment::UpstreamReceiveBegin,
            "US_RX_END" => Moment::UpstreamReceiveEnd,
            "DS_TX_BEG" => Moment::DownstreamSendBegin,
            "DS_TX_END" => Moment::DownstreamSendEnd,
            other => return Err(format!("command operator `%COMMON_DURATION%` does not know `{other}`")),
        })
    };
    let (from, to) = (moment()?, moment()?);
    let unit = match parts.next() {
        Some("ms") => TimeUnit::Milliseconds,
        Some("us") => TimeUnit::Microseconds,
        Some("ns") => TimeUnit::Nanoseconds,
        _ => return Err("command operator `%COMMON_DURATION%` needs a precision of ms, us or ns".into()),
    };
    if parts.next().is_some() {
        return Err("command operator `%COMMON_DURATION%` has two moments and a precision".into());
    }
    Ok(Command::CommonDuration { from, to, unit })
}

fn plain(name: &str) -> Option<Command> {
    Some(match name {
        "GRPC_STATUS_NUMBER" => Command::GrpcStatus(GrpcStatusFormat::Number),
        "UPSTREAM_HOST" => Command::UpstreamRemoteAddress(AddressPart::Both),
        "UPSTREAM_HOST_NAME" => Command::UpstreamHostName,
        "UPSTREAM_HOST_NAME_WITHOUT_PORT" => Command::UpstreamHostNameWithoutPort,
        "UPSTREAM_CONNECTION_POOL_READY_DURATION" => Command::UpstreamConnectionPoolReadyDuration,
        "UPSTREAM_PEER_ISSUER" => Command::UpstreamPeerIssuer,
        "UPSTREAM_PEER_DNS_SAN" => Command::UpstreamPeerDnsSan,
        "UPSTREAM_CLUSTER" => Command::UpstreamCluster,
        "UPSTREAM_CLUSTER_RAW" => Command::UpstreamClusterRaw,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Command::UpstreamRequestAttemptCount,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Command::UpstreamTransportFailureReason,
        "UPSTREAM_PROTOCOL" => Command::UpstreamProtocol,
        "UPSTREAM_TLS_VERSION" => Command::UpstreamTlsVersion,
        "UPSTREAM_TLS_CIPHER" => Command::UpstreamTlsCipher,
        "UPSTREAM_PEER_URI_SAN" => Command::UpstreamPeerUriSan,
        "UPSTREAM_PEER_SUBJECT" => Command::UpstreamPeerSubject,
        "RESPONSE_CODE" => Command::ResponseCode,
        "RESPONSE_CODE_DETAILS" => Command::ResponseCodeDetails,
        "CONNECTION_TERMINATION_DETAILS" => Command::ConnectionTerminationDetails,
        "RESPONSE_FLAGS" => Command::ResponseFlags,
        "RESPONSE_FLAGS_LONG" => Command::ResponseFlagsLong,
        "BYTES_RECEIVED" => Command::BytesReceived,
        "BYTES_SENT" => Command::BytesSent,
        "REQUEST_HEADERS_BYTES" => Command::RequestHeadersBytes,
        "RESPONSE_HEADERS_BYTES" => Command::ResponseHeadersBytes,
        "DURATION" => Command::Duration,
        "REQUEST_DURATION" => Command::RequestDuration,
        "REQUEST_TX_DURATION" => Command::RequestTxDuration,
        "RESPONSE_DURATION" => Command::ResponseDuration,
        "RESPONSE_TX_DURATION" => Command::ResponseTxDuration,
        "PROTOCOL" => Command::Protocol,
        "REQUESTED_SERVER_NAME" => Command::RequestedServerName,
        "ROUTE_NAME" => Command::RouteName,
        "FILTER_CHAIN_NAME" => Command::FilterChainName,
        "LISTENER_NAME" => Command::ListenerName,
        "ACCESS_LOG_TYPE" => Command::AccessLogType,
        "CONNECTION_ID" => Command::ConnectionId,
        "STREAM_ID" => Command::StreamId,
        "HOSTNAME" => Command::Hostname,
        "TRACE_ID" => Command::TraceId,
        "SPAN_ID" => Command::SpanId,
        "LOCAL_REPLY_BODY" => Command::LocalReplyBody,
        "DOWNSTREAM_TLS_VERSION" => Command::DownstreamTlsVersion,
        "DOWNSTREAM_TLS_CIPHER" => Command::DownstreamTlsCipher,
        "DOWNSTREAM_TLS_SESSION_ID" => Command::DownstreamTlsSessionId,
        "DOWNSTREAM_PEER_URI_SAN" => Command::DownstreamPeerUriSan,
        "DOWNSTREAM_PEER_DNS_SAN" => Command::DownstreamPeerDnsSan,
        "DOWNSTREAM_PEER_SUBJECT" => Command::DownstreamPeerSubject,
        "DOWNSTREAM_PEER_ISSUER" => Command::DownstreamPeerIssuer,
        "DOWNSTREAM_PEER_SERIAL" => Command::DownstreamPeerSerial,
        "DOWNSTREAM_PEER_FINGERPRINT_256" => Command::DownstreamPeerFingerprint256,
        "DOWNSTREAM_LOCAL_URI_SAN" => Command::DownstreamLocalUriSan,
        "DOWNSTREAM_LOCAL_SUBJECT" => Command::DownstreamLocalSubject,
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON" => Command::DownstreamTransportFailureReason,
        _ => return None,
    })
}

fn address(name: &str) -> Option<Command> {
    let (base, part) = if let Some(base) = name.strip_suffix("_ADDRESS_WITHOUT_PORT") {
        (base, AddressPart::WithoutPort)
    } else if let Some(base) = name.strip_suffix("_ADDRESS") {
        (base, AddressPart::Both)
    } else {
        (name.strip_suffix("_PORT")?, AddressPart::Port)
    };
    Some(match base {
        "DOWNSTREAM_REMOTE" => Command::DownstreamRemoteAddress(part),
        "DOWNSTREAM_DIRECT_REMOTE" => Command::DownstreamDirectRemoteAddress(part),
        "DOWNSTREAM_LOCAL" => Command::DownstreamLocalAddress(part),
        "UPSTREAM_REMOTE" => Command::UpstreamRemoteAddress(part),
        "UPSTREAM_LOCAL" => Command::UpstreamLocalAddress(part),
        _ => return None,
    })
}
