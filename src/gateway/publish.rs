//! The frame publisher: the actor that puts one source's events into the log.
//!
//! The actor gathers what waits, from one big array or from hundreds of small requests, into frames. A frame
//! that comes alone goes at once; while frames are under way, what comes meanwhile goes together. Only
//! the log's acknowledgement of its last frame answers a request.
//!
//! A frame without an answer from the log is sent again, under the same id, for as long as the log is sure to recognise
//! it; its requests have a deadline of their own and do not wait so long. While the log answers nothing, the requests that
//! wait hold at most a share of the gateway's room for bodies, so that other sources keep theirs. After that time, or when
//! the log is full, another writer begins: a frame names those before it that the log has acknowledged, and one that it
//! has not acknowledged must never be among them.

mod ticket;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, ResponseFuture, WrapFuture};
use bytes::Bytes;

pub(super) use self::ticket::{Publish, PublishError};

use self::ticket::{HeldBytes, Part, Ticket};
use crate::event::Source;
use crate::log::{AppendError, FrameWriter, MAX_FRAME_BYTES, MAX_FRAME_EVENTS, Piece, SharedLog, Topic};
use crate::ops::metrics::{GatewayFailure, GatewayMetrics};
use crate::runtime::Held;

/// Full frames that are under way to one stream at one time: 8 MiB.
const MAX_IN_FLIGHT: usize = 16;
/// Frames that are under way to each stream before one that is not full waits for more events.
const EAGER_IN_FLIGHT: usize = 1;
/// Interval at which requests past their deadline are answered.
const SWEEP: Duration = Duration::from_secs(1);
/// The longest time in which a frame is sent again; never longer than half the log's window.
const MAX_RESEND: Duration = Duration::from_secs(60);
/// A writer that has sent nothing for so long is followed by another one: collectors forget it after a month.
const WRITER_REST: Duration = Duration::from_hours(24);
/// The first wait before a frame is sent again; it doubles up to [`MAX_BACKOFF`].
const BACKOFF: Duration = Duration::from_millis(50);
/// Short: a log without a leader says so at once, and has another one within seconds.
const MAX_BACKOFF: Duration = Duration::from_millis(250);

/// Time without an answer of the log after which waiting requests are bounded by their share.
const STALLED: Duration = Duration::from_secs(2);
/// The answer to a request beyond the share.
const SHARE_HELD: &str =
    "the log does not answer, and the requests that wait for it hold their share of ESS_MAX_INFLIGHT";

/// A request on its way into frames.
struct Waiting {
    publish: Publish,
    /// Events that are in frames already.
    framed: usize,
    ticket: Arc<Ticket>,
}

impl Waiting {
    /// Events that are in no frame yet.
    fn left(&self) -> usize {
        self.publish.events.len() - self.framed
    }
}

/// A frame that is ready to be sent.
struct Outgoing {
    id: String,
    number: u64,
    frame: Bytes,
    tickets: Vec<Part>,
}

/// Frames on their way to one stream. Each stream has writers of its own, so that the frames of a writer stand in one
/// stream in their order: the ledger sizes those that wait in a stream by the numbers of its writers.
struct Lane {
    topic: Topic,
    writer: FrameWriter,
    /// Number of writers before this one, so that a late answer to an old one's frame is told apart.
    epoch: u64,
    in_flight: usize,
    /// When the last frame was written.
    wrote: Instant,
}

impl Lane {
    fn new(topic: Topic) -> Self {
        Self { topic, writer: FrameWriter::default(), epoch: 0, in_flight: 0, wrote: Instant::now() }
    }

    /// Another writer, whose numbers begin at 1.
    fn begin_anew(&mut self) {
        self.writer = FrameWriter::default();
        self.epoch += 1;
    }
}

/// The actor of one source.
pub(super) struct FramePublisher {
    source: Source,
    log: SharedLog,
    metrics: GatewayMetrics,
    resend: Duration,
    /// One for each stream of the source; never empty.
    lanes: Vec<Lane>,
    /// The lane whose turn it is among those with the same number of frames under way.
    turn: usize,
    waiting: VecDeque<Waiting>,
    waiting_events: usize,
    /// Bytes of the bodies of all requests that are not answered.
    held: HeldBytes,
    /// Maximum of them while the log does not answer; a single request always fits.
    share: usize,
    /// Time since which frames are under way and none was acknowledged.
    unanswered: Option<Instant>,
}

impl FramePublisher {
    pub fn new(
        source: Source,
        log: SharedLog,
        metrics: GatewayMetrics,
        duplicate_window: Duration,
        share: usize,
    ) -> Self {
        let lanes = Topic::streams(source, log.streams_per_source().max(1)).map(Lane::new).collect();
        Self {
            source,
            log,
            metrics,
            resend: MAX_RESEND.min(duplicate_window / 2),
            lanes,
            turn: 0,
            waiting: VecDeque::new(),
            waiting_events: 0,
            held: HeldBytes::default(),
            share,
            unanswered: None,
        }
    }

    /// The lane with the fewest frames under way, in turn: a stream that does not answer keeps what it has, and the
    /// others go on.
    fn next_lane(&self) -> usize {
        let lanes = self.lanes.len();
        let in_turn = (0..lanes).map(|step| (self.turn + step) % lanes);
        in_turn.min_by_key(|lane| self.lanes[*lane].in_flight).unwrap_or_default()
    }

    /// Sends frames while there is something to send and room in flight.
    fn pump(&mut self, context: &mut Context<Self>) {
        while !self.waiting.is_empty() {
            let at = self.next_lane();
            let under_way = self.lanes[at].in_flight;
            if under_way >= MAX_IN_FLIGHT
                || (under_way >= EAGER_IN_FLIGHT && self.waiting_events < MAX_FRAME_EVENTS)
            {
                break;
            }
            let Some(Outgoing { id, number, frame, tickets }) = self.next_frame(at) else { break };
            self.turn = at + 1;
            self.unanswered.get_or_insert_with(Instant::now);
            let lane = &mut self.lanes[at];
            lane.in_flight += 1;
            let epoch = lane.epoch;
            let send = send(self.log.clone(), lane.topic, id, frame, self.resend);
            context.spawn(send.into_actor(self).map(move |result, actor, context| {
                actor.settle((at, epoch), number, &tickets, result);
                actor.pump(context);
            }));
        }
    }

    /// Fills a frame of a lane with waiting events.
    fn next_frame(&mut self, lane: usize) -> Option<Outgoing> {
        let mut parts: Vec<(Publish, Range<usize>)> = Vec::new();
        let mut tickets = Vec::new();
        let (mut events, mut bytes) = (0, 0);
        while let Some(first) = self.waiting.front_mut() {
            if first.ticket.given_up() {
                self.waiting_events -= first.left();
                first
                    .ticket
                    .answer(Err(PublishError::Unavailable("the log did not confirm in time".to_owned())));
                self.waiting.pop_front();
                continue;
            }
            let from = first.framed;
            let all = first.publish.events.len();
            while first.framed < all && events < MAX_FRAME_EVENTS {
                let size = first.publish.events[first.framed].len();
                if events > 0 && bytes + size > MAX_FRAME_BYTES {
                    break;
                }
                bytes += size;
                events += 1;
                first.framed += 1;
                self.waiting_events -= 1;
            }
            if first.framed > from {
                parts.push((first.publish.clone(), from..first.framed));
                tickets.push((first.ticket.clone(), first.framed - from));
            }
            if first.framed < all {
                break;
            }
            self.waiting.pop_front();
        }
        if events == 0 {
            return None;
        }
        let pieces: Vec<Piece<'_>> = parts
            .iter()
            .map(|(publish, range)| Piece {
                origin: &publish.origin,
                body: &publish.body,
                events: &publish.events[range.clone()],
            })
            .collect();
        let lane = &mut self.lanes[lane];
        if lane.wrote.elapsed() > WRITER_REST && lane.writer.is_settled() {
            lane.begin_anew();
        }
        lane.wrote = Instant::now();
        let (id, frame) = lane.writer.write(&pieces);
        Some(Outgoing { id, number: lane.writer.number(), frame, tickets })
    }

    /// True if a request with a body of so many bytes has to be refused, so that other sources keep their room.
    fn exceeds_share(&self, bytes: usize) -> bool {
        let held = self.held.get();
        held > 0
            && held + bytes > self.share
            && self.unanswered.is_some_and(|since| since.elapsed() > STALLED)
    }

    /// Handles the log's answer to a frame of a lane.
    fn settle(
        &mut self,
        (lane, epoch): (usize, u64),
        number: u64,
        tickets: &[Part],
        result: Result<(), AppendError>,
    ) {
        self.lanes[lane].in_flight -= 1;
        let under_way = self.lanes.iter().any(|lane| lane.in_flight > 0);
        if result.is_ok() || !under_way {
            self.unanswered = under_way.then(Instant::now);
        }
        let lane = &mut self.lanes[lane];
        let events: usize = tickets.iter().map(|(_, events)| events).sum();
        let error = match result {
            Ok(()) => {
                if epoch == lane.epoch {
                    lane.writer.acknowledge(number);
                }
                self.metrics.processed.of(self.source).inc_by(events as u64);
                self.metrics.frames.of(self.source).inc();
                for (ticket, events) in tickets {
                    ticket.settle(*events);
                }
                return;
            }
            Err(error) => error,
        };
        tracing::warn!(source = %self.source, events, %error, "a frame is not in the log");
        let (reason, answer) = match error {
            AppendError::Full(why) => (GatewayFailure::LogFull, PublishError::Full(why)),
            AppendError::Refused(why) | AppendError::Unavailable(why) => {
                (GatewayFailure::LogUnavailable, PublishError::Unavailable(why.to_string()))
            }
        };
        // No later frame may count it as acknowledged.
        if epoch == lane.epoch {
            lane.begin_anew();
        }
        self.metrics.fail(Some(self.source), reason, events as u64);
        for (ticket, _) in tickets {
            ticket.answer(Err(answer.clone()));
        }
    }
}

/// Sends a frame until the log gives a definite answer, or until the log might no longer recognise the frame.
async fn send(
    log: SharedLog,
    topic: Topic,
    id: String,
    frame: Bytes,
    resend: Duration,
) -> Result<(), AppendError> {
    let since = Instant::now();
    let mut wait = BACKOFF;
    loop {
        match log.append(topic, id.clone(), frame.clone()).await {
            Ok(_) => return Ok(()),
            Err(AppendError::Unavailable(why)) if since.elapsed() + wait >= resend => {
                return Err(AppendError::Unavailable(why));
            }
            Err(AppendError::Unavailable(why)) => {
                tracing::debug!(%topic, id, %why, "sending a frame again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(MAX_BACKOFF);
            }
            Err(error) => return Err(error),
        }
    }
}

impl Actor for FramePublisher {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        // While no frame can be sent, requests whose time is over let go of their bytes all the same.
        context.run_interval(SWEEP, |actor, _| {
            let (late, waiting) = std::mem::take(&mut actor.waiting)
                .into_iter()
                .partition::<VecDeque<_>, _>(|waiting| waiting.ticket.given_up());
            actor.waiting = waiting;
            for waiting in late {
                actor.waiting_events -= waiting.left();
                let why = "the log did not confirm in time".to_owned();
                waiting.ticket.answer(Err(PublishError::Unavailable(why)));
            }
        });
    }
}

impl Handler<Held<Publish>> for FramePublisher {
    type Result = ResponseFuture<Result<(), PublishError>>;

    fn handle(&mut self, held: Held<Publish>, context: &mut Self::Context) -> Self::Result {
        let (publish, room) = held.open();
        if self.exceeds_share(publish.body.len()) {
            let events = publish.events.len() as u64;
            self.metrics.fail(Some(self.source), GatewayFailure::LogUnavailable, events);
            return Box::pin(async { Err(PublishError::Unavailable(SHARE_HELD.to_owned())) });
        }
        let bytes = self.held.take(publish.body.len());
        let (ticket, answer) = Ticket::new(publish.clone(), bytes, room);
        self.waiting_events += publish.events.len();
        self.waiting.push_back(Waiting { publish, framed: 0, ticket });
        self.pump(context);
        Box::pin(async { answer.await.unwrap_or(Err(PublishError::Restarted)) })
    }
}

#[cfg(test)]
mod tests;
