use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::*;
use crate::gateway::testing::{TestGateway, origin};
use crate::log::Frame;
use crate::runtime::Mailbox;

const SOURCE: Source = Source::FACEBOOK;
const LARGE: u64 = 1 << 30;
const WINDOW: Duration = Duration::from_secs(120);

/// A request of `count` events of `size` bytes or a few more, each with the request's name and its own number.
fn request(gateway: &TestGateway, name: &str, count: usize, size: usize) -> Publish {
    let (mut body, mut events) = (Vec::new(), Vec::new());
    for number in 0..count {
        let from = body.len();
        body.extend_from_slice(format!("{name}-{number:05}-{}", "x".repeat(size)).as_bytes());
        events.push(from..body.len());
    }
    Publish {
        origin: origin(name),
        body: body.into(),
        events: Arc::new(events),
        durable: Arc::default(),
        deadline: Instant::now() + Duration::from_secs(60),
        reservation: gateway.reservation(),
    }
}

async fn send(publisher: &Mailbox<FramePublisher>, request: &Publish) -> Result<(), PublishError> {
    publisher.send(request.clone()).await.unwrap()
}

async fn frames(gateway: &TestGateway) -> Vec<Frame> {
    let frames = gateway.log.frames(Topic::Events(SOURCE)).await;
    frames.into_iter().map(|frame| Frame::read(frame).unwrap()).collect()
}

#[actix::test]
async fn small_requests_share_frames_and_each_is_answered_once_its_events_are_in_the_log() {
    let gateway = TestGateway::start(LARGE, WINDOW).await;
    let publisher = gateway.publisher(SOURCE);
    let requests: Vec<_> = (10..60).map(|n| request(&gateway, &format!("r{n}"), 3, 10)).collect();
    let answers = futures::future::join_all(requests.iter().map(|request| send(&publisher, request))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(requests.iter().all(|request| request.durable.load(Ordering::Relaxed) == 3));
    let events = gateway.log.events(SOURCE).await;
    assert_eq!(events.len(), 150);
    // Requests may arrive in any order; the events of each stay together in theirs.
    let names: BTreeSet<&str> = events.chunks(3).map(|three| &three[0][..3]).collect();
    assert_eq!(names.len(), 50);
    for three in events.chunks(3) {
        for (number, event) in three.iter().enumerate() {
            assert!(event.starts_with(&format!("{}-{number:05}", &three[0][..3])), "{three:?}");
        }
    }
    let frames = frames(&gateway).await.len();
    assert!((2..50).contains(&frames), "{frames} frames of 50 requests");
    assert_eq!(gateway.metrics.processed.of(SOURCE).get(), 150);
    assert_eq!(gateway.metrics.frames.of(SOURCE).get(), frames as u64);
}

#[actix::test]
async fn a_large_request_is_cut_into_frames_within_both_bounds() {
    let gateway = TestGateway::start(LARGE, WINDOW).await;
    let publisher = gateway.publisher(SOURCE);
    let many = 2 * MAX_FRAME_EVENTS + 1;
    send(&publisher, &request(&gateway, "many", many, 10)).await.unwrap();
    let cut: Vec<usize> = frames(&gateway).await.iter().map(Frame::len).collect();
    assert_eq!(cut, [MAX_FRAME_EVENTS, MAX_FRAME_EVENTS, 1]);
    // Two of these fit into a frame, and three do not.
    send(&publisher, &request(&gateway, "large", 5, MAX_FRAME_BYTES * 2 / 5)).await.unwrap();
    let cut: Vec<usize> = frames(&gateway).await[3..].iter().map(Frame::len).collect();
    assert_eq!(cut, [2, 2, 1]);
    assert_eq!(gateway.log.events(SOURCE).await.len(), many + 5);
}

#[actix::test]
async fn a_frame_without_an_answer_is_sent_again_under_its_id_and_is_in_the_log_once() {
    let gateway = TestGateway::start(LARGE, WINDOW).await;
    let publisher = gateway.publisher(SOURCE);
    let away = || AppendError::Unavailable("no answer".into());
    gateway.log.fail_next(away(), true);
    gateway.log.fail_next(away(), false);
    send(&publisher, &request(&gateway, "r", 7, 10)).await.unwrap();
    assert_eq!(gateway.log.appends.load(Ordering::Relaxed), 3);
    let ids: BTreeSet<_> = gateway.log.ids.lock().unwrap().iter().cloned().collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(gateway.log.events(SOURCE).await.len(), 7);
}

#[actix::test]
async fn after_a_frame_that_failed_another_writer_begins_at_1() {
    let gateway = TestGateway::start(LARGE, WINDOW).await;
    let publisher = gateway.publisher(SOURCE);
    for name in ["a", "b"] {
        send(&publisher, &request(&gateway, name, 1, 10)).await.unwrap();
    }
    gateway.log.fail_next(AppendError::Refused("too large".into()), false);
    let failed = request(&gateway, "failed", 1, 10);
    let answer = send(&publisher, &failed).await;
    assert_eq!(answer, Err(PublishError::Unavailable("too large".to_owned())));
    assert_eq!(failed.durable.load(Ordering::Relaxed), 0);
    send(&publisher, &request(&gateway, "c", 1, 10)).await.unwrap();
    let frames = frames(&gateway).await;
    let numbers: Vec<u64> = frames.iter().map(|frame| frame.number).collect();
    assert_eq!(numbers, [1, 2, 1]);
    assert_eq!(frames[0].writer, frames[1].writer);
    assert_ne!(frames[1].writer, frames[2].writer);
    assert_eq!(frames[1].acknowledged.number, 1);
    assert_eq!(frames[2].acknowledged.number, 0);
}

#[actix::test]
async fn a_full_log_is_told_to_the_request() {
    let gateway = TestGateway::start(4_096, WINDOW).await;
    let publisher = gateway.publisher(SOURCE);
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(send(&publisher, &request(&gateway, "r", 1, 1_000)).await);
    }
    let taken = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((1..10).contains(&taken), "{answers:?}");
    assert!(matches!(answers[19], Err(PublishError::Full(_))), "{answers:?}");
    assert_eq!(gateway.log.events(SOURCE).await.len(), taken);
}

#[actix::test]
async fn a_request_past_its_deadline_is_answered_and_its_events_are_not_sent() {
    // A frame is sent again for half this window.
    let gateway = TestGateway::start(LARGE, Duration::from_millis(400)).await;
    let publisher = gateway.publisher(SOURCE);
    for _ in 0..100 {
        gateway.log.fail_next(AppendError::Unavailable("no answer".into()), false);
    }
    let (first, mut late) = (request(&gateway, "first", 1, 10), request(&gateway, "late", 1, 10));
    late.deadline = Instant::now();
    let (of_first, of_late) = futures::join!(send(&publisher, &first), send(&publisher, &late));
    assert_eq!(of_first, Err(PublishError::Unavailable("no answer".to_owned())));
    assert!(
        matches!(&of_late, Err(PublishError::Unavailable(why)) if why.contains("in time")),
        "{of_late:?}"
    );
    let ids: BTreeSet<_> = gateway.log.ids.lock().unwrap().iter().cloned().collect();
    assert_eq!(ids.len(), 1, "only the first request came into a frame: {ids:?}");
}

#[actix::test]
async fn while_the_log_is_away_waiting_requests_hold_a_share_of_the_room_and_no_more() {
    let gateway = TestGateway::start(LARGE, WINDOW).await;
    let publisher = gateway.publisher_with_share(SOURCE, 15_000);
    gateway.log.away.store(true, Ordering::Relaxed);
    let first = {
        let (publisher, request) = (publisher.clone(), request(&gateway, "first", 1, 10_000));
        actix::spawn(async move { send(&publisher, &request).await })
    };
    let large = request(&gateway, "large", 1, 10_000);
    let mut waited = 0;
    let refused = loop {
        // As long as the log may only be slow, the request waits; here it gives up after a moment.
        match tokio::time::timeout(Duration::from_millis(100), send(&publisher, &large)).await {
            Ok(answer) => break answer,
            Err(_) => waited += 1,
        }
        assert!(waited < 600, "it was never refused");
    };
    assert!(waited > 0, "it was refused before the log had time to answer");
    assert_eq!(refused, Err(PublishError::Unavailable(SHARE_HELD.to_owned())));
    gateway.log.away.store(false, Ordering::Relaxed);
    assert_eq!(first.await.unwrap(), Ok(()));
    assert_eq!(send(&publisher, &large).await, Ok(()));
}
