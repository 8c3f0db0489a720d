use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

/// A connection of the proxy and the other end of it.
async fn pair(buffers: &BufferPool) -> (Io, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), async {
        listener.accept().await.unwrap().0
    });
    (Io::plain(near.unwrap(), None, buffers.clone()).unwrap(), far)
}

struct Bed {
    wheel: Wheel,
    buffers: BufferPool,
    a: Io,
    b: Io,
    client: TcpStream,
    server: TcpStream,
}

async fn bed() -> Bed {
    let (wheel, buffers) = (Wheel::start(), BufferPool::default());
    let (a, client) = pair(&buffers).await;
    let (b, server) = pair(&buffers).await;
    Bed { wheel, buffers, a, b, client, server }
}

#[tokio::test]
async fn end_of_one_direction_is_passed_on_and_the_other_goes_on() {
    LocalSet::new()
        .run_until(async {
            let Bed { wheel, buffers, a, b, mut client, mut server } = bed().await;
            let progress = Progress::default();
            let copying = copy(&wheel, &buffers, &a, &b, None, &progress);
            let peers = async {
                client.write_all(b"ping").await.unwrap();
                client.shutdown().await.unwrap();
                let mut all = Vec::new();
                server.read_to_end(&mut all).await.unwrap();
                assert_eq!(all, b"ping");
                for _ in 0..3 {
                    server.write_all(b"pong").await.unwrap();
                    let mut four = [0; 4];
                    client.read_exact(&mut four).await.unwrap();
                    assert_eq!(&four, b"pong");
                }
                server.shutdown().await.unwrap();
                assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
            };
            let (end, ()) = tokio::join!(copying, peers);
            assert!(matches!(end, CopyEnd::Finished), "{end:?}");
            assert_eq!((progress.a_to_b.get(), progress.b_to_a.get()), (4, 12));
            assert!(buffers.free().0 >= 1, "buffers came back");
        })
        .await;
}

#[tokio::test]
async fn much_data_goes_both_ways_unchanged() {
    LocalSet::new()
        .run_until(async {
            let Bed { wheel, buffers, a, b, client, server } = bed().await;
            let progress = Progress::default();
            let up: Vec<u8> = (0..3_000_000_u32).map(|i| ((i * 7) >> 3) as u8).collect();
            let down: Vec<u8> = (0..2_000_000_u32).map(|i| ((i * 13) >> 5) as u8).collect();
            let talk = async |mut stream: TcpStream, say: &[u8]| {
                let (mut read, mut write) = stream.split();
                let mut heard = Vec::new();
                let (said, listened) = tokio::join!(
                    async {
                        write.write_all(say).await?;
                        write.shutdown().await
                    },
                    read.read_to_end(&mut heard)
                );
                said.unwrap();
                listened.unwrap();
                heard
            };
            let copying = copy(&wheel, &buffers, &a, &b, None, &progress);
            let (end, at_client, at_server) = tokio::join!(copying, talk(client, &up), talk(server, &down));
            assert!(matches!(end, CopyEnd::Finished), "{end:?}");
            assert!(at_server == up && at_client == down);
            assert_eq!((progress.a_to_b.get(), progress.b_to_a.get()), (up.len() as u64, down.len() as u64));
        })
        .await;
}

#[tokio::test]
async fn reset_of_one_side_resets_the_other() {
    LocalSet::new()
        .run_until(async {
            let Bed { wheel, buffers, a, b, mut client, server } = bed().await;
            let progress = Progress::default();
            let copying = async {
                let end = copy(&wheel, &buffers, &a, &b, None, &progress).await;
                drop((a, b));
                end
            };
            let peers = async {
                socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
                drop(server);
                client.read(&mut [0; 1]).await.unwrap_err().kind()
            };
            let (end, seen) = tokio::join!(copying, peers);
            assert!(matches!(end, CopyEnd::Failed(Side::B, _)), "{end:?}");
            assert_eq!(seen, io::ErrorKind::ConnectionReset);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn silence_ends_it_after_the_idle_timeout_and_movement_postpones_that() {
    LocalSet::new()
        .run_until(async {
            let Bed { wheel, buffers, a, b, mut client, mut server } = bed().await;
            let progress = Progress::default();
            let begin = tokio::time::Instant::now();
            let idle = Duration::from_secs(60);
            let copying = copy(&wheel, &buffers, &a, &b, Some(idle), &progress);
            let peers = async {
                wheel.sleep(Duration::from_secs(40)).await;
                client.write_all(b"x").await.unwrap();
                server.read_exact(&mut [0; 1]).await.unwrap();
            };
            let (end, ()) = tokio::join!(copying, peers);
            assert!(matches!(end, CopyEnd::Idle), "{end:?}");
            assert!(begin.elapsed() >= Duration::from_secs(100), "{:?}", begin.elapsed());
        })
        .await;
}
