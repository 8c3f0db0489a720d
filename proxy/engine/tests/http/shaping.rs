//! What filters do to bodies, and what is answered here: compression, buffers, gRPC-Web, health checks, local replies.

use std::io::Read;

use flate2::read::GzDecoder;
use outrigger_testkit::client::get;
use outrigger_testkit::{Origin, Response};
use outrigger_traffic::config::{
    AccessLogFormat, BufferLimit, Coding, Compressible, Compressor, CompressorRoute, Config, Decoding,
    Decompressible, Decompressor, FilterConfig, FilterOverride, HeaderAppend, HeaderEdit, HeaderMatch,
    HeaderValueMatch, HealthCheckFilter, HttpFilter, LocalReply, LogFilter, ReplyFormat, ReplyMapper,
    RouteFilterConfig, StringMatch,
};

use crate::bed::{Bed, host, manager, to, to_h2};

fn with(config: &mut Config, filter: FilterConfig) {
    manager(config).http_filters.push(HttpFilter::new("f", filter));
}

fn gzip() -> FilterConfig {
    FilterConfig::Compressor(Box::new(Compressor {
        coding: Coding::Gzip { level: 6, window_bits: 15 },
        response: Some(Compressible::default()),
        request: None,
        disable_on_etag: false,
        remove_accept_encoding: false,
        uncompressible_statuses: Vec::new(),
        choose_first: false,
    }))
}

fn plain(response: &Response) -> Vec<u8> {
    let mut out = Vec::new();
    GzDecoder::new(&*response.body).read_to_end(&mut out).unwrap();
    out
}

#[tokio::test]
async fn response_is_compressed_between_all_protocols_for_those_who_accept_it() {
    for upstream_h2 in [false, true] {
        let origin = if upstream_h2 { Origin::h2c("one").await } else { Origin::h1("one").await };
        let mut config = if upstream_h2 { to_h2(&[&origin]) } else { to(&[&origin]) };
        with(&mut config, gzip());
        let mut bed = Bed::start(config);
        for path in ["/bytes/200000", "/chunked/9"] {
            let before = get(bed.address, "h", path).await;
            let mut h1 = bed.h1().await;
            let fields = [("host", "h"), ("accept-encoding", "gzip")];
            let found = h1.request("GET", path, &fields, b"").await.unwrap();
            assert_eq!(
                (found.field("content-encoding"), found.field("vary")),
                (Some("gzip"), Some("Accept-Encoding"))
            );
            assert_eq!((plain(&found) == before.body, found.field("content-length")), (true, None), "{path}");
            let again = h1.request("HEAD", path, &fields, b"").await.unwrap();
            assert_eq!((again.status, again.field("content-encoding")), (200, None));
            let h2 = bed.h2().await;
            let request =
                http::Request::get(format!("http://h{path}")).header("accept-encoding", "br, gzip;q=0.5");
            let found = h2.request(request.body(bytes::Bytes::new()).unwrap()).await.unwrap();
            assert!(plain(&found) == before.body && before.field("content-encoding").is_none());
        }
        let stat = |bed: &Bed| bed.http_stat(|stats| stats.compressor_compressed.value());
        assert_eq!(stat(&bed), 4);
        bed.change(|config| {
            let off = FilterOverride::with(RouteFilterConfig::Compressor(CompressorRoute::Off));
            host(config).routes[0].filters = Some([("f".to_owned(), off)].into());
        });
        let mut h1 = bed.h1().await;
        let found = h1.request("GET", "/bytes/99", &[("host", "h"), ("accept-encoding", "gzip")], b"").await;
        assert_eq!(found.unwrap().field("content-encoding"), None);
    }
}

#[tokio::test]
async fn request_is_decompressed_before_the_upstream_sees_it() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    with(
        &mut config,
        FilterConfig::Decompressor(Box::new(Decompressor {
            coding: Decoding::Gzip { window_bits: 15, max_inflate_ratio: 100 },
            request: Some(Decompressible::default()),
            response: None,
            advertise: true,
        })),
    );
    let bed = Bed::start(config);
    let mut coded = Vec::new();
    flate2::read::GzEncoder::new(&[b'x'; 5000][..], flate2::Compression::new(6))
        .read_to_end(&mut coded)
        .unwrap();
    let mut h1 = bed.h1().await;
    let fields = [("host", "h"), ("content-encoding", "gzip")];
    assert_eq!(h1.request("POST", "/count", &fields, &coded).await.unwrap().text(), "5000");
    assert_eq!(h1.request("POST", "/count", &[("host", "h")], b"12").await.unwrap().text(), "2");
    let seen = origin.seen();
    assert_eq!((seen[0].field("content-encoding"), seen[0].field("accept-encoding")), (None, None));
    let broken = h1.request("POST", "/count", &fields, b"no gzip").await.unwrap();
    assert_eq!(broken.status, 400);
}

#[tokio::test]
async fn buffered_request_of_the_limit_passes_and_one_byte_more_is_refused() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    with(&mut config, FilterConfig::Buffer(BufferLimit { max_request_bytes: 1000 }));
    let bed = Bed::start(config);
    let h2 = bed.h2().await;
    let post = |size: usize| http::Request::post("http://h/count").body(vec![b'x'; size].into()).unwrap();
    assert_eq!(h2.request(post(1000)).await.unwrap().text(), "1000");
    assert_eq!(origin.seen()[0].field("content-length"), Some("1000"));
    assert_eq!(h2.request(post(1001)).await.unwrap().status, 413);
    let mut h1 = bed.h1().await;
    let answer = h1.request("POST", "/count", &[("host", "h")], &[b'x'; 1001]).await.unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (413, "Payload Too Large"));
    assert_eq!((origin.requests(), bed.http_stat(|stats| stats.buffer_rq_too_large.value())), (1, 2));
}

fn field(name: &str, value: &str) -> HeaderMatch {
    HeaderMatch {
        name: name.into(),
        value: HeaderValueMatch::Text(StringMatch::exact(value)),
        invert: false,
        treat_missing_as_empty: false,
    }
}

#[tokio::test]
async fn health_check_is_answered_here_by_the_state_of_clusters() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    let cluster = config.clusters[0].name.clone();
    let check = |path: &str, name: &str| {
        FilterConfig::HealthCheck(Box::new(HealthCheckFilter {
            pass_through: false,
            cache_time: None,
            cluster_min_healthy: vec![(name.to_owned(), 100)],
            headers: vec![field(":path", path)],
        }))
    };
    manager(&mut config).http_filters =
        vec![HttpFilter::new("a", check("/up", &cluster)), HttpFilter::new("b", check("/down", "nobody"))];
    let bed = Bed::start(config);
    assert_eq!(get(bed.address, "h", "/up").await.status, 200);
    assert_eq!(get(bed.address, "h", "/down").await.status, 503);
    assert_eq!(origin.requests(), 0);
    assert_eq!(get(bed.address, "h", "/echo").await.status, 200);
}

#[tokio::test]
async fn local_reply_is_mapped_formatted_and_edited() {
    let origin = Origin::h1("one").await;
    let mut config = to(&[&origin]);
    host(&mut config).routes.clear();
    let json =
        serde_json::json!({"code": "%RESPONSE_CODE%", "body": "%LOCAL_REPLY_BODY%", "path": "%REQ(:path)%"});
    manager(&mut config).local_reply = Some(LocalReply {
        mappers: vec![ReplyMapper {
            filter: LogFilter::Header(field("x-map", "1")),
            status: Some(418),
            body: Some("tea".into()),
            format: None,
            headers: vec![HeaderEdit {
                name: "x-mapped".into(),
                value: "%RESPONSE_CODE%".into(),
                append: HeaderAppend::OverwriteIfExistsOrAdd,
                keep_empty_value: false,
            }],
        }],
        format: Some(ReplyFormat {
            format: AccessLogFormat::Json(json.as_object().unwrap().clone()),
            content_type: String::new(),
        }),
    });
    let bed = Bed::start(config);
    let mut h1 = bed.h1().await;
    let found = h1.request("GET", "/a", &[("host", "h"), ("x-map", "1")], b"").await.unwrap();
    assert_eq!((found.status, found.field("x-mapped")), (418, Some("404")));
    assert_eq!(found.field("content-type"), Some("application/json"));
    assert_eq!(found.text(), "{\"code\":418,\"body\":\"tea\",\"path\":\"/a\"}\n");
    let found = h1.request("GET", "/b", &[("host", "h")], b"").await.unwrap();
    assert_eq!((found.status, found.field("x-mapped")), (404, None));
    let grpc = [("host", "h"), ("x-map", "1"), ("content-type", "application/grpc")];
    let found = h1.request("POST", "/c", &grpc, b"").await.unwrap();
    assert_eq!((found.status, found.field("grpc-status")), (200, Some("2")));
}
