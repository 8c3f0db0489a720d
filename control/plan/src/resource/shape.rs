//! What is known of each message of Istio's API.
//!
//! A [`Shape`] lists the fields we act on and the official ones we do not act on yet. Reading a message checks every key
//! against its shape, so that no field is dropped in silence; the reference table in the documentation is printed from
//! the same lists ([`SHAPES`]).

/// The fields of one message.
#[derive(Debug)]
pub struct Shape {
    /// Istio's name of the message, with the kind for a resource's own spec.
    pub message: &'static str,
    /// Fields that have their full effect.
    pub supported: &'static [&'static str],
    /// Official fields that are refused by name.
    pub not_yet: &'static [&'static str],
}

macro_rules! shapes {
    ($($id:ident = $message:literal { $($supported:literal)* } { $($not_yet:literal)* })*) => {
        $(
            #[doc = concat!("`", $message, "`.")]
            pub static $id: Shape =
                Shape { message: $message, supported: &[$($supported),*], not_yet: &[$($not_yet),*] };
        )*
        /// Every message, in the order of the reference table.
        pub static SHAPES: &[&Shape] = &[$(&$id),*];
    };
}

shapes! {
    DOCUMENT = "document" { "apiVersion" "kind" "metadata" "spec" } { "status" }
    METADATA = "metadata" { "name" "namespace" "labels" "annotations" "resourceVersion" "generation" "uid" "creationTimestamp" }
        { "generateName" "finalizers" "ownerReferences" "managedFields" "deletionTimestamp" "deletionGracePeriodSeconds" "selfLink" }

    SERVICE_ENTRY = "ServiceEntry" { "hosts" "ports" "location" "resolution" "endpoints" "workloadSelector" "exportTo" "subjectAltNames" }
        { "addresses" }
    SERVICE_PORT = "ServiceEntry.ports[]" { "number" "name" "protocol" "targetPort" } {}
    WORKLOAD_ENTRY = "WorkloadEntry" { "address" "ports" "labels" "locality" "weight" "serviceAccount" } { "network" }
    WORKLOAD_GROUP = "WorkloadGroup" { "metadata" "template" "probe" } {}
    WORKLOAD_GROUP_METADATA = "WorkloadGroup.ObjectMeta" { "labels" } { "annotations" }
    WORKLOAD_GROUP_TEMPLATE = "WorkloadGroup.template" { "ports" "labels" "locality" "weight" "serviceAccount" } { "network" }
    READINESS_PROBE = "ReadinessProbe" { "initialDelaySeconds" "timeoutSeconds" "periodSeconds" "successThreshold" "failureThreshold" "httpGet" "tcpSocket" "grpc" }
        { "exec" }
    PROBE_HTTP = "HTTPHealthCheckConfig" { "path" "port" "host" "scheme" "httpHeaders" } {}
    PROBE_HEADER = "HTTPHeader" { "name" "value" } {}
    PROBE_TCP = "TCPHealthCheckConfig" { "host" "port" } {}
    PROBE_GRPC = "GrpcHealthCheckConfig" { "port" "service" } {}
    WORKLOAD_SELECTOR = "WorkloadSelector (networking)" { "labels" } {}

    VIRTUAL_SERVICE = "VirtualService" { "hosts" "gateways" "http" "tls" "tcp" "exportTo" } {}
    HTTP_ROUTE = "HTTPRoute" { "name" "match" "route" "redirect" "directResponse" "rewrite" "timeout" "retries" "headers" "mirror" "mirrors" "mirrorPercentage" "mirrorPercent" "mirror_percent" "fault" "corsPolicy" }
        { "delegate" }
    FAULT = "HTTPFaultInjection" { "delay" "abort" } {}
    FAULT_DELAY = "HTTPFaultInjection.Delay" { "fixedDelay" "percentage" "percent" } { "exponentialDelay" }
    FAULT_ABORT = "HTTPFaultInjection.Abort" { "httpStatus" "grpcStatus" "percentage" } { "http2Error" }
    CORS = "CorsPolicy" { "allowOrigins" "allowOrigin" "allowMethods" "allowHeaders" "exposeHeaders" "maxAge" "allowCredentials" "unmatchedPreflights" } {}
    MIRROR_POLICY = "HTTPMirrorPolicy" { "destination" "percentage" } {}
    PERCENT = "Percent" { "value" } {}
    HTTP_MATCH = "HTTPMatchRequest" { "name" "uri" "scheme" "method" "authority" "headers" "withoutHeaders" "queryParams" "port" "ignoreUriCase" "gateways" "sourceLabels" "sourceNamespace" }
        { "statPrefix" }
    STRING_MATCH = "StringMatch" { "exact" "prefix" "regex" } {}
    HTTP_DESTINATION = "HTTPRouteDestination" { "destination" "weight" "headers" } {}
    DESTINATION = "Destination" { "host" "subset" "port" } {}
    PORT_SELECTOR = "PortSelector" { "number" } {}
    REDIRECT = "HTTPRedirect" { "uri" "authority" "port" "scheme" "redirectCode" } { "derivePort" }
    DIRECT_RESPONSE = "HTTPDirectResponse" { "status" "body" } {}
    HTTP_BODY = "HTTPBody" { "string" "bytes" } {}
    REWRITE = "HTTPRewrite" { "uri" "authority" "uriRegexRewrite" } {}
    REGEX_REWRITE = "RegexRewrite" { "match" "rewrite" } {}
    RETRIES = "HTTPRetry" { "attempts" "perTryTimeout" "retryOn" "retryIgnorePreviousHosts" "backoff" } { "retryRemoteLocalities" }
    HEADERS = "Headers" { "request" "response" } {}
    HEADER_OPERATIONS = "HeaderOperations" { "set" "add" "remove" } {}
    TCP_ROUTE = "TCPRoute" { "match" "route" } {}
    TLS_ROUTE = "TLSRoute" { "match" "route" } {}
    L4_MATCH = "L4MatchAttributes" { "port" "gateways" "sourceLabels" "sourceNamespace" } { "destinationSubnets" "sourceSubnet" }
    TLS_MATCH = "TLSMatchAttributes" { "sniHosts" "port" "gateways" "sourceLabels" "sourceNamespace" } { "destinationSubnets" }
    ROUTE_DESTINATION = "RouteDestination" { "destination" "weight" } {}

    DESTINATION_RULE = "DestinationRule" { "host" "trafficPolicy" "subsets" "exportTo" } { "workloadSelector" }
    SUBSET = "Subset" { "name" "labels" "trafficPolicy" } {}
    TRAFFIC_POLICY = "TrafficPolicy" { "loadBalancer" "connectionPool" "outlierDetection" "tls" "portLevelSettings" }
        { "tunnel" "proxyProtocol" "retryBudget" }
    PORT_TRAFFIC_POLICY = "PortTrafficPolicy" { "port" "loadBalancer" "connectionPool" "outlierDetection" "tls" } {}
    LOAD_BALANCER = "LoadBalancerSettings" { "simple" "consistentHash" "localityLbSetting" "warmupDurationSecs" "warmup" } {}
    WARMUP = "WarmupConfiguration" { "duration" "minimumPercent" "aggression" } {}
    CONSISTENT_HASH = "LoadBalancerSettings.ConsistentHashLB" { "httpHeaderName" "httpCookie" "useSourceIp" "httpQueryParameterName" "ringHash" "maglev" "minimumRingSize" } {}
    HTTP_COOKIE = "LoadBalancerSettings.ConsistentHashLB.HTTPCookie" { "name" "path" "ttl" } { "attributes" }
    RING_HASH = "LoadBalancerSettings.ConsistentHashLB.RingHash" { "minimumRingSize" } {}
    MAGLEV = "LoadBalancerSettings.ConsistentHashLB.MagLev" { "tableSize" } {}
    LOCALITY_LB = "LocalityLoadBalancerSetting" { "enabled" "failover" } { "distribute" "failoverPriority" }
    LOCALITY_FAILOVER = "LocalityLoadBalancerSetting.Failover" { "from" "to" } {}
    CONNECTION_POOL = "ConnectionPoolSettings" { "tcp" "http" } {}
    POOL_TCP = "ConnectionPoolSettings.TCPSettings" { "maxConnections" "connectTimeout" "tcpKeepalive" "maxConnectionDuration" } { "idleTimeout" }
    KEEPALIVE = "TcpKeepalive" { "probes" "time" "interval" } {}
    POOL_HTTP = "ConnectionPoolSettings.HTTPSettings" { "http1MaxPendingRequests" "http2MaxRequests" "maxRequestsPerConnection" "maxRetries" "idleTimeout" "h2UpgradePolicy" "useClientProtocol" "maxConcurrentStreams" } {}
    OUTLIER_DETECTION = "OutlierDetection" { "splitExternalLocalOriginErrors" "consecutiveLocalOriginFailures" "consecutiveGatewayErrors" "consecutive5xxErrors" "interval" "baseEjectionTime" "maxEjectionPercent" "minHealthPercent" }
        { "consecutiveErrors" }
    CLIENT_TLS = "ClientTLSSettings" { "mode" "sni" "subjectAltNames" "credentialName" "insecureSkipVerify" }
        { "clientCertificate" "privateKey" "caCertificates" "caCrl" }

    GATEWAY = "Gateway" { "selector" "servers" } {}
    SERVER = "Server" { "name" "port" "bind" "hosts" "tls" } { "defaultEndpoint" }
    GATEWAY_PORT = "Port" { "number" "name" "protocol" } { "targetPort" }
    SERVER_TLS = "ServerTLSSettings" { "mode" "httpsRedirect" "credentialName" "subjectAltNames" "minProtocolVersion" "maxProtocolVersion" }
        { "serverCertificate" "privateKey" "caCertificates" "caCrl" "cipherSuites" "credentialNames" "tlsCertificates" "caCertCredentialName" "verifyCertificateSpki" "verifyCertificateHash" }

    PEER_AUTHENTICATION = "PeerAuthentication" { "selector" "mtls" "portLevelMtls" } {}
    MUTUAL_TLS = "PeerAuthentication.MutualTLS" { "mode" } {}
    SECURITY_SELECTOR = "WorkloadSelector (security)" { "matchLabels" } {}
    REQUEST_AUTHENTICATION = "RequestAuthentication" { "selector" "jwtRules" } { "targetRef" "targetRefs" }
    JWT_RULE = "JWTRule" { "issuer" "audiences" "jwksUri" "jwks_uri" "jwks" "fromHeaders" "fromParams" "fromCookies" "outputPayloadToHeader" "outputClaimToHeaders" "forwardOriginalToken" "timeout" }
        { "spaceDelimitedClaims" }
    JWT_HEADER = "JWTHeader" { "name" "prefix" } {}
    CLAIM_TO_HEADER = "ClaimToHeader" { "header" "claim" } {}
    AUTHORIZATION_POLICY = "AuthorizationPolicy" { "selector" "action" "rules" } { "provider" "targetRef" "targetRefs" }
    RULE = "Rule" { "from" "to" "when" } {}
    RULE_FROM = "Rule.From" { "source" } {}
    RULE_TO = "Rule.To" { "operation" } {}
    SOURCE = "Source" { "principals" "notPrincipals" "namespaces" "notNamespaces" "serviceAccounts" "notServiceAccounts" "ipBlocks" "notIpBlocks" "remoteIpBlocks" "notRemoteIpBlocks" "requestPrincipals" "notRequestPrincipals" } {}
    OPERATION = "Operation" { "hosts" "notHosts" "ports" "notPorts" "methods" "notMethods" "paths" "notPaths" } {}
    CONDITION = "Condition" { "key" "values" "notValues" } {}

    SECRET = "Secret" { "apiVersion" "kind" "metadata" "type" "data" "stringData" } { "immutable" }
}

#[cfg(test)]
mod tests {
    use super::SHAPES;

    #[test]
    fn no_field_is_both_supported_and_not() {
        for shape in SHAPES {
            for field in shape.not_yet {
                assert!(!shape.supported.contains(field), "{}.{field}", shape.message);
            }
        }
    }
}
