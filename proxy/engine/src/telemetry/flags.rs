//! Response flags: why a request ended as it did, in Envoy's short codes (`%RESPONSE_FLAGS%`).

use std::fmt;

/// A set of response flags. Source of codes and names: Envoy: access log, `%RESPONSE_FLAGS%`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ResponseFlags(u32);

macro_rules! flags {
    ($($bit:literal $name:ident $short:literal $long:literal $doc:literal;)*) => {
        impl ResponseFlags {
            $(#[doc = $doc] pub const $name: Self = Self(1 << $bit);)*
        }

        /// Every flag with its short and long name.
        pub const ALL: &[(ResponseFlags, &str, &str)] = &[$((ResponseFlags::$name, $short, $long),)*];
    };
}

flags! {
    0 NO_HEALTHY_UPSTREAM "UH" "NoHealthyUpstream" "No healthy host in the cluster (503).";
    1 UPSTREAM_CONNECTION_FAILURE "UF" "UpstreamConnectionFailure" "Connecting to the host failed (503).";
    2 UPSTREAM_OVERFLOW "UO" "UpstreamOverflow" "A circuit breaker was open (503).";
    3 NO_ROUTE "NR" "NoRouteFound" "No route for the request, or no filter chain for the connection (404).";
    4 UPSTREAM_RETRY_LIMIT "URX" "UpstreamRetryLimitExceeded" "The attempts were used up.";
    5 NO_CLUSTER "NC" "NoClusterFound" "The route's cluster does not exist.";
    6 DURATION_TIMEOUT "DT" "DurationTimeout" "The longest life of a request or connection was over.";
    7 DOWNSTREAM_TERMINATION "DC" "DownstreamConnectionTermination" "The peer went away.";
    8 LOCAL_RESET "LR" "LocalReset" "The stream was reset here (503).";
    9 UPSTREAM_REMOTE_RESET "UR" "UpstreamRemoteReset" "The host reset the stream (503).";
    10 UPSTREAM_TERMINATION "UC" "UpstreamConnectionTermination" "The host closed the connection (503).";
    11 UPSTREAM_TIMEOUT "UT" "UpstreamRequestTimeout" "The host took too long (504).";
    12 FAULT_DELAY "DI" "DelayInjected" "A delay was injected.";
    13 FAULT_ABORT "FI" "FaultInjected" "A response was injected.";
    14 RATE_LIMITED "RL" "RateLimited" "A rate limit was over (429).";
    15 UNAUTHORIZED_EXTERNAL "UAEX" "UnauthorizedExternalService" "An authorization service denied it.";
    16 STREAM_IDLE_TIMEOUT "SI" "StreamIdleTimeout" "Nothing moved for too long (408 or 504).";
    17 DOWNSTREAM_PROTOCOL_ERROR "DPE" "DownstreamProtocolError" "The peer broke the protocol.";
    18 UPSTREAM_PROTOCOL_ERROR "UPE" "UpstreamProtocolError" "The host broke the protocol.";
    19 UPSTREAM_MAX_STREAM_DURATION "UMSDR" "UpstreamMaxStreamDurationReached" "The longest life of an upstream stream was over.";
    20 NO_FILTER_CONFIG "NFCF" "NoFilterConfigFound" "The configuration of a filter had not arrived.";
    21 OVERLOAD "OM" "OverloadManagerTerminated" "The proxy was overloaded.";
    22 DNS_FAILURE "DF" "DnsResolutionFailed" "The name could not be resolved.";
    23 DROP_OVERLOAD "DO" "DropOverload" "The cluster asked to drop a share of requests.";
    24 DOWNSTREAM_REMOTE_RESET "DR" "DownstreamRemoteReset" "The peer reset the stream.";
    25 INVALID_ENVOY_HEADER "IH" "InvalidEnvoyRequestHeaders" "A strictly checked x-envoy header had no valid value (400).";
    26 RATE_LIMIT_SERVICE_ERROR "RLSE" "RateLimitServiceError" "The rate limit service did not answer (500).";
}

impl ResponseFlags {
    /// No flag.
    pub const NONE: Self = Self(0);

    /// Whether no flag is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether every flag of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Sets the flags of `other` too.
    pub const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Both together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set as a number, for keys.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Appends the short codes, separated by commas, in Envoy's order; nothing for an empty set.
    pub fn write_short(self, out: &mut Vec<u8>) {
        self.write(out, |(_, short, _)| short);
    }

    /// Appends the long names (`%RESPONSE_FLAGS_LONG%`).
    pub fn write_long(self, out: &mut Vec<u8>) {
        self.write(out, |(_, _, long)| long);
    }

    fn write(self, out: &mut Vec<u8>, name: impl Fn(&(Self, &'static str, &'static str)) -> &'static str) {
        let mut first = true;
        for row in ALL.iter().filter(|row| self.contains(row.0)) {
            if !first {
                out.push(b',');
            }
            first = false;
            out.extend_from_slice(name(row).as_bytes());
        }
    }
}

impl std::ops::BitOr for ResponseFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl std::ops::BitOrAssign for ResponseFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.insert(other);
    }
}

impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.write_short(&mut text);
        f.write_str(if text.is_empty() { "-" } else { std::str::from_utf8(&text).unwrap_or("-") })
    }
}

impl fmt::Debug for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResponseFlags({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_several_are_joined_in_envoys_order() {
        let flags = ResponseFlags::UPSTREAM_RETRY_LIMIT | ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
        assert_eq!(flags.to_string(), "UF,URX");
        assert_eq!(ResponseFlags::NONE.to_string(), "-");
        assert!(flags.contains(ResponseFlags::UPSTREAM_RETRY_LIMIT));
        assert!(!flags.contains(ResponseFlags::NO_ROUTE));
    }

    #[test]
    fn flags_codes_are_unique() {
        for (i, a) in ALL.iter().enumerate() {
            for b in ALL.iter().skip(i + 1) {
                assert!(a.0 != b.0 && a.1 != b.1 && a.2 != b.2, "{a:?} {b:?}");
            }
        }
    }
}
