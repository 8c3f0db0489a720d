//! What is spoken to the hosts of a cluster.
//!
//! The typed `HttpProtocolOptions` and the older fields of the cluster itself mean the same; both at once are refused.

use crate::translate::At;
use crate::translate::http_connection_manager::{http1, http2};
use crate::translate::value::limit_or;
use outrigger_api::envoy::config::cluster::v3::Cluster as ProtoCluster;
use outrigger_api::envoy::config::core::v3 as core;
use outrigger_api::envoy::extensions::upstreams::http::v3 as proto;
use outrigger_traffic::config::{HttpUpstream, UpstreamHttp};
use proto::http_protocol_options as options;

/// The key under which Envoy looks for the options.
const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The protocol of a cluster and its settings.
pub(super) fn upstream_http(message: &ProtoCluster, tls: bool, at: &At<'_>) -> UpstreamHttp {
    let mut http = UpstreamHttp::default();
    let mut typed = false;
    for (key, any) in &message.typed_extension_protocol_options {
        let at = at.key("typed_extension_protocol_options", key);
        if key != KEY {
            at.refuse(format!("the only key is `{KEY}`"));
            continue;
        }
        match at.unpack::<proto::HttpProtocolOptions>(any) {
            Some(found) => {
                typed = true;
                if let Some(found) = found.message() {
                    typed_options(&found, tls, &mut http, &at);
                }
            }
            None => at.refuse_type(any),
        }
    }
    older_fields(message, typed, &mut http, at);
    http
}

fn typed_options(message: &proto::HttpProtocolOptions, tls: bool, http: &mut UpstreamHttp, at: &At<'_>) {
    use options::UpstreamProtocolOptions as U;
    if let Some(common) = &message.common_http_protocol_options {
        common_options(common, http, &at.field("common_http_protocol_options"));
    }
    if let Some(names) = &message.upstream_http_protocol_options {
        http.auto_sni = names.auto_sni;
        http.auto_san_validation = names.auto_san_validation;
    }
    match &message.upstream_protocol_options {
        None => {
            at.refuse("`explicit_http_config`, `use_downstream_protocol_config` or `auto_config` is required")
        }
        Some(U::ExplicitHttpConfig(explicit)) => {
            use options::explicit_http_config::ProtocolConfig as P;
            let at = at.field("explicit_http_config");
            match &explicit.protocol_config {
                None => at.refuse("`http_protocol_options` or `http2_protocol_options` is required"),
                Some(P::HttpProtocolOptions(o)) => {
                    http.protocol = HttpUpstream::Http1;
                    http.http1 = http1(o, &at.field("http_protocol_options"));
                }
                Some(P::Http2ProtocolOptions(o)) => {
                    http.protocol = HttpUpstream::Http2;
                    http.http2 = http2(o, &at.field("http2_protocol_options"));
                }
            }
        }
        Some(U::UseDownstreamProtocolConfig(same)) => {
            http.protocol = HttpUpstream::Downstream;
            let at = at.field("use_downstream_protocol_config");
            both(same.http_protocol_options.as_ref(), same.http2_protocol_options.as_ref(), http, &at);
        }
        Some(U::AutoConfig(auto)) => {
            http.protocol = HttpUpstream::Auto;
            let at = at.field("auto_config");
            if !tls {
                at.refuse("needs a TLS transport socket, whose ALPN chooses the protocol");
            }
            both(auto.http_protocol_options.as_ref(), auto.http2_protocol_options.as_ref(), http, &at);
        }
    }
}

fn both(
    one: Option<&core::Http1ProtocolOptions>,
    two: Option<&core::Http2ProtocolOptions>,
    http: &mut UpstreamHttp,
    at: &At<'_>,
) {
    if let Some(options) = one {
        http.http1 = http1(options, &at.field("http_protocol_options"));
    }
    if let Some(options) = two {
        http.http2 = http2(options, &at.field("http2_protocol_options"));
    }
}

fn common_options(message: &core::HttpProtocolOptions, http: &mut UpstreamHttp, at: &At<'_>) {
    http.idle_timeout = limit_or(message.idle_timeout.as_ref(), http.idle_timeout, &at.field("idle_timeout"));
    http.max_connection_duration =
        limit_or(message.max_connection_duration.as_ref(), None, &at.field("max_connection_duration"));
    http.max_requests_per_connection = message.max_requests_per_connection.filter(|n| *n > 0);
    if message.headers_with_underscores_action != 0 {
        at.field("headers_with_underscores_action").refuse("is for requests of clients; a cluster has none");
    }
    if message.max_headers_count.is_some() {
        at.field("max_headers_count").refuse("is not supported towards a cluster");
    }
    if message.max_stream_duration.is_some() {
        at.field("max_stream_duration").refuse("is not supported towards a cluster; routes have it");
    }
}

/// The deprecated fields of the cluster, which many published configurations still use.
fn older_fields(message: &ProtoCluster, typed: bool, http: &mut UpstreamHttp, at: &At<'_>) {
    let given = [
        ("max_requests_per_connection", message.max_requests_per_connection.is_some()),
        ("common_http_protocol_options", message.common_http_protocol_options.is_some()),
        ("http_protocol_options", message.http_protocol_options.is_some()),
        ("http2_protocol_options", message.http2_protocol_options.is_some()),
    ];
    if typed {
        for (field, _) in given.iter().filter(|(_, given)| *given) {
            at.field(field).refuse("cannot be given together with `typed_extension_protocol_options`");
        }
        return;
    }
    if let Some(common) = &message.common_http_protocol_options {
        common_options(common, http, &at.field("common_http_protocol_options"));
    }
    if let Some(count) = message.max_requests_per_connection.filter(|n| *n > 0) {
        http.max_requests_per_connection = Some(count);
    }
    if let Some(options) = &message.http_protocol_options {
        http.http1 = http1(options, &at.field("http_protocol_options"));
    }
    if let Some(options) = &message.http2_protocol_options {
        http.protocol = HttpUpstream::Http2;
        http.http2 = http2(options, &at.field("http2_protocol_options"));
    }
}
