use crate::bed::*;
use outrigger_testkit::Origin;
use outrigger_traffic::config::{ClusterChoice, HeaderEdits, WeightedCluster};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test]
async fn bytes_pass_both_ways_and_are_counted() {
    let origin = Origin::tcp_echo("a").await;
    let proxy = start(simple(origin.address(), |_| {}));
    let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
    for size in [1, 100, 100_000, 1] {
        echo(&mut stream, &vec![size as u8; size]).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    assert!(until_closed(&mut stream).await.is_empty());
    eventually("the connection to be counted", || {
        tcp_count(&proxy, |s| s.downstream_cx_rx_bytes_total.value()) == 100_102
    })
    .await;
    assert_eq!(tcp_count(&proxy, |s| s.downstream_cx_tx_bytes_total.value()), 100_102);
    assert_eq!(cluster_count(&proxy, "a", |s| s.upstream_cx_total.value()), 1);
    eventually("nothing to be open", || cluster_count(&proxy, "a", |s| s.upstream_cx_active.value()) == 0)
        .await;
    eventually("the listener to be empty", || {
        listener_count(&proxy, |s| s.downstream_cx_active.value()) == 0
    })
    .await;
}

#[tokio::test]
async fn client_that_is_done_still_gets_the_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        let answer = format!("{} bytes", all.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let proxy = start(simple(origin, |_| {}));
    let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
    stream.write_all(&[0; 50_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(until_closed(&mut stream).await, b"50000 bytes");
}

#[tokio::test]
async fn server_that_speaks_first_and_ends_is_heard_while_the_client_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 ready").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all
    });
    let proxy = start(simple(origin, |_| {}));
    let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
    assert_eq!(until_closed(&mut stream).await, b"220 ready");
    stream.write_all(b"still here").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(serving.await.unwrap(), b"still here");
}

#[tokio::test]
async fn silent_connection_is_closed_after_the_idle_timeout() {
    let origin = Origin::tcp_echo("a").await;
    let proxy = start(simple(origin.address(), |tcp| tcp.idle_timeout = Some(Duration::from_millis(80))));
    let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
    echo(&mut stream, b"x").await.unwrap();
    until_closed(&mut stream).await;
    assert_eq!(tcp_count(&proxy, |s| s.idle_timeout.value()), 1);
}

#[tokio::test]
async fn busy_connection_is_closed_at_its_longest_duration() {
    let origin = Origin::tcp_echo("a").await;
    let longest = Some(Duration::from_millis(100));
    let proxy = start(simple(origin.address(), |tcp| tcp.max_downstream_connection_duration = longest));
    let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
    while echo(&mut stream, b"x").await.is_ok() {}
    eventually("the end to be counted", || {
        tcp_count(&proxy, |s| s.max_downstream_connection_duration.value()) == 1
    })
    .await;
}

#[tokio::test]
async fn attempts_go_to_another_host_up_to_their_number() {
    let origin = Origin::tcp_echo("a").await;
    for (attempts, served) in [(1, false), (2, true)] {
        let mut tcp = tcp_to("a");
        tcp.max_connect_attempts = attempts;
        // Round robin begins anywhere: with every start once, the dead host is first once.
        let mut outcomes = Vec::new();
        let proxy = start(config(
            listener(vec![chain(tcp, None)]),
            vec![cluster("a", &[nobody().await, origin.address()])],
        ));
        for _ in 0..4 {
            let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
            outcomes.push(echo(&mut stream, b"x").await.is_ok());
        }
        assert_eq!(outcomes.iter().all(|ok| *ok), served, "{attempts}: {outcomes:?}");
        assert!(cluster_count(&proxy, "a", |s| s.upstream_cx_connect_fail.value()) >= 1);
    }
}

#[tokio::test]
async fn connection_beyond_the_breaker_is_closed_and_room_is_given_back() {
    let origin = Origin::tcp_echo("a").await;
    let mut config = simple(origin.address(), |_| {});
    config.clusters[0].circuit_breakers.default.max_connections = 1;
    let proxy = start(config);
    let mut first = TcpStream::connect(address(&proxy)).await.unwrap();
    echo(&mut first, b"x").await.unwrap();
    let mut second = TcpStream::connect(address(&proxy)).await.unwrap();
    assert!(echo(&mut second, b"x").await.is_err());
    assert_eq!(cluster_count(&proxy, "a", |s| s.upstream_cx_overflow.value()), 1);
    drop(first);
    eventually("the connection to be gone", || {
        cluster_count(&proxy, "a", |s| s.upstream_cx_active.value()) == 0
    })
    .await;
    let mut third = TcpStream::connect(address(&proxy)).await.unwrap();
    echo(&mut third, b"x").await.unwrap();
}

#[tokio::test]
async fn weights_decide_the_cluster() {
    let (a, b) = (greeter("a").await, greeter("b").await);
    let share = |name: &str, weight| WeightedCluster {
        name: name.into(),
        cluster_header: None,
        weight,
        headers: HeaderEdits::default(),
        host_rewrite: None,
        filters: None,
        metadata_match: Vec::new(),
    };
    for (weights, expected) in [((1, 0), "a"), ((0, 1), "b")] {
        let mut tcp = tcp_to("a");
        tcp.cluster = ClusterChoice::Weighted(vec![share("a", weights.0), share("b", weights.1)]);
        let proxy =
            start(config(listener(vec![chain(tcp, None)]), vec![cluster("a", &[a]), cluster("b", &[b])]));
        for _ in 0..5 {
            let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
            assert_eq!(until_closed(&mut stream).await, expected.as_bytes());
        }
    }
}

#[tokio::test]
async fn cluster_without_hosts_closes_the_connection() {
    let mut config = simple(nobody().await, |_| {});
    config.clusters = vec![cluster("a", &[])];
    let proxy = start(config);
    let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
    assert!(until_closed(&mut stream).await.is_empty());
    assert_eq!(cluster_count(&proxy, "a", |s| s.upstream_cx_none_healthy.value()), 1);
}

#[tokio::test]
async fn upstream_reset_reaches_the_client_as_reset() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read_exact(&mut [0; 1]).await;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let proxy = start(simple(origin, |_| {}));
    let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    let error = stream.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn connection_to_a_host_that_left_is_cut_where_that_is_wanted() {
    let (old, new) = (Origin::tcp_echo("old").await, Origin::tcp_echo("new").await);
    let mut config = simple(old.address(), |_| {});
    config.clusters[0].close_connections_on_host_removal = true;
    let proxy = start(config.clone());
    let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
    echo(&mut stream, b"before").await.unwrap();
    config.clusters[0].discovery = cluster("a", &[new.address()]).discovery;
    proxy.apply(config.clone()).unwrap();
    until_closed(&mut stream).await;
    let mut stream = TcpStream::connect(address(&proxy)).await.unwrap();
    echo(&mut stream, b"after").await.unwrap();
    // Where it is not wanted, a connection outlives its host.
    config.clusters[0].close_connections_on_host_removal = false;
    proxy.apply(config.clone()).unwrap();
    let mut kept = TcpStream::connect(address(&proxy)).await.unwrap();
    echo(&mut kept, b"x").await.unwrap();
    config.clusters[0].discovery = cluster("a", &[old.address()]).discovery;
    proxy.apply(config).unwrap();
    tokio::time::timeout(Duration::from_millis(700), stream.read_u8()).await.unwrap_err();
    echo(&mut kept, b"still there").await.unwrap();
}
