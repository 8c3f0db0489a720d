use super::*;
use tokio::task::LocalSet;

async fn local<F: Future>(future: F) -> F::Output {
    LocalSet::new().run_until(future).await
}

#[tokio::test(start_paused = true)]
async fn armed_deadline_fires_at_its_time_and_not_before() {
    local(async {
        let wheel = Wheel::start();
        let start = Instant::now();
        for millis in [0_u64, 1, 9, 10, 11, 500, 3_600_000] {
            let begin = Instant::now();
            wheel.sleep(Duration::from_millis(millis)).await;
            let took = begin.elapsed();
            assert!(took >= Duration::from_millis(millis), "{millis} took {took:?}");
            assert!(took <= Duration::from_millis(millis) + 2 * TICK, "{millis} took {took:?}");
        }
        assert!(start.elapsed() >= Duration::from_secs(3600));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn postponed_deadline_fires_at_the_later_time() {
    local(async {
        let wheel = Wheel::start();
        let deadline = wheel.deadline();
        let begin = Instant::now();
        deadline.set(Duration::from_millis(100));
        for _ in 0..10 {
            wheel.sleep(Duration::from_millis(50)).await;
            deadline.set(Duration::from_millis(100));
        }
        deadline.expired().await;
        assert!(begin.elapsed() >= Duration::from_millis(600));
        assert!(begin.elapsed() <= Duration::from_millis(750));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn deadline_moved_to_earlier_fires_early() {
    local(async {
        let wheel = Wheel::start();
        let deadline = wheel.deadline();
        deadline.set(Duration::from_secs(100));
        wheel.sleep(Duration::from_millis(20)).await;
        let begin = Instant::now();
        deadline.set(Duration::from_millis(30));
        deadline.expired().await;
        assert!(begin.elapsed() <= Duration::from_millis(50));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn cleared_deadline_never_fires_and_can_be_armed_again() {
    local(async {
        let wheel = Wheel::start();
        let deadline = wheel.deadline();
        deadline.set(Duration::from_millis(50));
        deadline.clear();
        assert!(wheel.timeout(Some(Duration::from_secs(1)), deadline.expired()).await.is_none());
        assert_eq!(wheel.queued(), 0);
        deadline.set(Duration::from_millis(50));
        assert!(wheel.timeout(Some(Duration::from_secs(1)), deadline.expired()).await.is_some());
        assert!(deadline.is_expired());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dropped_deadline_leaves_the_queue_at_once() {
    local(async {
        let wheel = Wheel::start();
        let many: Vec<_> = (0..100).map(|_| wheel.deadline()).collect();
        many.iter().for_each(|d| d.set(Duration::from_secs(3600)));
        assert_eq!(wheel.queued(), 100);
        drop(many);
        assert_eq!(wheel.queued(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn endless_duration_does_not_overflow() {
    local(async {
        let wheel = Wheel::start();
        let deadline = wheel.deadline();
        deadline.set(Duration::MAX);
        assert!(wheel.timeout(Some(Duration::from_secs(1)), deadline.expired()).await.is_none());
    })
    .await;
}
