//! Executing requests.
//!
//! The requests of one connection are executed and answered in order. A request that fails is answered with an
//! ERROR and has changed nothing; only a protocol violation ends the connection.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, UNIX_EPOCH};

use tracing::field::display;

use super::answers::{Answer, Begun, Success, Told, told};
use super::delivery::{NewSub, Reader};
use super::describe;
use super::refusal::Refusal;
use super::session::{End, Phase, Session, Step};
use super::shutdown::Shared;
use super::wakers::SubscriptionWaker;
use crate::access::Right;
use crate::broker::{LeaseOpenError, LeaseOrigin, PublishWait, Purpose, Ticket, Topic};
use crate::listener::AppendInFlight;
use crate::log::{AppendError, LeaseError, LeaseOptions, Packed, Start, SubscribeError};
use crate::protocol::{
    self, Code, GapReason, Hello, OnGap, Publish, Reply, Request, Subscribe, TopicName, Welcome,
};

/// The slot of a waiting publish's waker. No subscription has this slot.
pub(super) const PUBLISH_SLOT: u32 = u32::MAX;
/// The slot of the waker for appends that are on their way.
pub(super) const ANSWER_SLOT: u32 = u32::MAX - 2;
/// The slot of the waker for input memory.
pub(super) const INPUT_SLOT: u32 = u32::MAX - 1;

/// A request that holds back the requests after it.
pub(super) enum HeldRequest {
    /// A publish waits for room in its topic.
    Publish(Box<WaitingPublish>),
    /// A list of topics is sent in pieces.
    List(Box<List>),
    /// The answers to earlier publishes come first.
    Answers,
}

/// A publish that waits for room.
pub(super) struct WaitingPublish {
    /// The topic that it found. If the name is deleted and recreated meanwhile, the publish still waits on this
    /// one, and fails because it is closed.
    topic: Arc<Topic>,
    wait: PublishWait,
    waker: Arc<SubscriptionWaker>,
}

impl WaitingPublish {
    pub(super) fn topic(&self) -> &str {
        self.topic.name()
    }
}

/// A list of topics that is sent as fast as the peer takes it.
pub(super) struct List {
    request: u32,
    prefix: String,
    /// The last name that was sent.
    after: Option<Arc<str>>,
}

impl Session {
    /// Executes one request.
    pub(super) fn request(&mut self, request: &Request<'_>) -> Result<Step, End> {
        if self.answers.must_precede(request) {
            self.held = Some(HeldRequest::Answers);
            return Ok(Step::Hold);
        }
        match (self.phase, request) {
            (Phase::Handshake, Request::Hello(hello)) => self.hello(hello)?,
            (Phase::Handshake, _) => {
                self.goodbye(Code::BadFrame, "the first frame is no HELLO; send one")?;
            }
            (_, Request::Hello(_)) => {
                self.goodbye(Code::BadFrame, "a second HELLO; send one, as the first frame")?;
            }
            (_, Request::Publish(publish)) => return Ok(self.publish(publish)),
            (_, Request::Subscribe(subscribe)) => {
                let made = self.subscribe(subscribe);
                self.answer(subscribe.request, made);
            }
            (_, &Request::Unsubscribe { request, sub, release }) => {
                if self.subs.unsubscribe(sub, release, &mut self.out)? {
                    self.recount();
                    self.done(request);
                } else {
                    self.unknown_subscription(request);
                }
            }
            (_, &Request::Commit { request, sub, offset, ack }) => {
                match self.subs.commit(sub, offset) {
                    None => self.unknown_subscription(request),
                    Some(None) => {
                        let message = "the subscription has no lease; subscribe with one to commit";
                        self.refuse(request, Code::BadCommit, message);
                    }
                    Some(Some(Err(error))) => {
                        self.answer(request, Err(Refusal::commit(&error)));
                    }
                    Some(Some(Ok(()))) if ack => self.done(request),
                    Some(Some(Ok(()))) => {}
                }
            }
            (_, Request::Create { settings, .. })
                if settings.need_version_2() && self.version < 2 =>
            {
                self.goodbye(Code::BadFrame, "version 1 has no durability; offer version 2")?;
            }
            (_, Request::Create { request, topic, settings, exist_ok }) => {
                let begun = self.create(*topic, settings, *exist_ok);
                self.answers.add(Answer { request: *request, success: Success::Done, begun });
                self.settle_answers();
            }
            (_, Request::Delete { request, topic }) => {
                let deleted = self.delete(*topic);
                self.answer_done(*request, deleted);
            }
            (_, Request::Close { request, topic }) => {
                let begun = self.close(*topic);
                self.answers.add(Answer { request: *request, success: Success::Done, begun });
                self.settle_answers();
            }
            (_, Request::List { request, prefix }) => {
                self.held = Some(HeldRequest::List(Box::new(List {
                    request: *request,
                    prefix: prefix.map_or("", TopicName::as_str).into(),
                    after: None,
                })));
                self.send_list();
            }
            (_, Request::Describe { request, topic }) => {
                let described = self.describe(*request, *topic);
                self.answer(*request, described);
            }
            (_, &Request::Ping { token }) => self.out.push(&Reply::Pong { token }),
        }
        Ok(Step::Done)
    }

    // ---- answers ----

    fn refuse(&mut self, request: u32, code: Code, message: &str) {
        self.answer(request, Err(Refusal::new(code, message)));
    }

    pub(super) fn answer(&mut self, request: u32, result: Result<(), Refusal>) {
        if let Err(refusal) = result {
            self.shared.flood.refused.note(refusal.code);
            if refusal.code == Code::Forbidden && self.shared.flood.forbidden.should_log() {
                let (token, message) = (self.grant.name(), refusal.message.as_str());
                let peer = self.peer.map(display);
                tracing::warn!(connection = self.id, peer, token, message, "forbidden");
            }
            tracing::debug!(
                connection = self.id,
                request,
                code = %refusal.code,
                message = refusal.message,
                "request refused"
            );
            self.out.push(&Reply::Error(refusal.reply(request)));
        }
    }

    fn answer_done(&mut self, request: u32, result: Result<(), Refusal>) {
        match result {
            Ok(()) => self.done(request),
            Err(refusal) => self.answer(request, Err(refusal)),
        }
    }

    fn done(&mut self, request: u32) {
        self.out.push(&Reply::Done { request });
    }

    fn unknown_subscription(&mut self, request: u32) {
        let message = "no subscription of this connection has that number; check it";
        self.refuse(request, Code::UnknownSubscription, message);
    }

    // ---- the requests ----

    fn hello(&mut self, hello: &Hello<'_>) -> Result<(), End> {
        let Some(version) = protocol::negotiate(hello.version_min, hello.version_max) else {
            let message = format!(
                "versions {} to {} are spoken here, {} to {} there; update the older side",
                protocol::VERSION_MIN,
                protocol::VERSION_MAX,
                hello.version_min,
                hello.version_max
            );
            return self.goodbye(Code::BadVersion, &message);
        };
        let config = &self.shared.config;
        let Some(grant) = self.shared.gate.admit(hello.token) else {
            if self.shared.flood.unauthorized.should_log() {
                let peer = self.peer.map(display);
                tracing::warn!(connection = self.id, peer, client = hello.client, "wrong token");
            }
            return self
                .goodbye(Code::Unauthorized, "the token is missing or wrong; give the server's");
        };
        let (client, token) = (hello.client, grant.name());
        tracing::debug!(connection = self.id, client, token, version, "welcome");
        self.grant = grant;
        self.version = version;
        self.out.push(&Reply::Welcome(Welcome {
            version,
            max_frame: config.limits.max_frame,
            max_record: config.limits.max_record,
            server: &config.name,
        }));
        self.phase = Phase::Open;
        Ok(())
    }

    fn publish(&mut self, publish: &Publish<'_>) -> Step {
        let resumed = self.resumed.take();
        let count = publish.records.count();
        let success = if publish.ack { Success::Ack(count) } else { Success::Silent };
        match self.try_publish(publish, resumed) {
            Poll::Pending => Step::Hold,
            Poll::Ready(mut begun) => {
                // Where the topic is in memory, and nothing is on its way, there is nothing to wait for.
                if self.answers.is_empty()
                    && let Ok(begun) = &mut begun
                    && let Some(done) = begun.ticket.take_ready()
                {
                    self.tell(publish.request, success, told(begun, done));
                    return Step::Done;
                }
                self.answers.add(Answer { request: publish.request, success, begun });
                self.settle_answers();
                Step::Done
            }
        }
    }

    /// Sends the answers that waited for the disk, as far as they are known, in order.
    pub(super) fn settle_answers(&mut self) {
        while let Some((Answer { request, success, .. }, told)) = self.answers.next(&self.waker) {
            self.tell(request, success, told);
        }
        if matches!(self.held, Some(HeldRequest::Answers)) && !self.answers.hold_back() {
            self.held = None;
        }
    }

    fn tell(&mut self, request: u32, success: Success, told: Told) {
        match (told, success) {
            (Err(refusal), _) => self.answer(request, Err(refusal)),
            (Ok((epoch, first)), Success::Ack(count)) => {
                self.out.push(&Reply::Ack { request, epoch, first, count });
            }
            (Ok(_), Success::Done) => self.done(request),
            (Ok(_), Success::Silent) => {}
        }
    }

    /// Begins to append the records; if pending, `held` has the publish.
    fn try_publish(
        &mut self,
        publish: &Publish<'_>,
        resumed: Option<Box<WaitingPublish>>,
    ) -> Poll<Result<Begun, Refusal>> {
        if resumed.is_none() {
            self.grant.check(Right::Publish, publish.topic.as_str())?;
        }
        // Before a topic is created for it. It ends with this attempt: a publish that waits is not in flight.
        let Some(in_flight) = AppendInFlight::begin(self.shared.clone()) else {
            return Poll::Ready(Err(Refusal::shutting_down()));
        };
        let topic = match &resumed {
            Some(waiting) => waiting.topic.clone(),
            None => open(&self.shared, &mut self.topics_made, publish.topic, Purpose::Publish)?,
        };
        // The codec has already checked this, so it cannot fail; only the types do not show that.
        let packed = Packed::new(publish.records.ends(), publish.records.payload())
            .map_err(|error| Refusal::new(Code::BadFrame, error.to_string()))?;
        let begun = match &resumed {
            None => topic.try_publish(packed),
            Some(_) => Err(AppendError::Closed.into()),
        };
        let overflow = topic.settings().overflow;
        let begun = match begun {
            Err(error) if resumed.is_some() || error.waits(overflow) => {
                let mut waiting = resumed.unwrap_or_else(|| {
                    Box::new(WaitingPublish {
                        topic: topic.clone(),
                        wait: PublishWait::default(),
                        waker: SubscriptionWaker::new(self.waker.clone(), PUBLISH_SLOT),
                    })
                });
                waiting.waker.reset();
                let waker = Waker::from(waiting.waker.clone());
                let cx = &mut Context::from_waker(&waker);
                match topic.poll_publish(cx, packed, &mut waiting.wait) {
                    Poll::Ready(begun) => begun,
                    Poll::Pending => {
                        self.held = Some(HeldRequest::Publish(waiting));
                        return Poll::Pending;
                    }
                }
            }
            begun => begun,
        };
        Poll::Ready(match begun {
            Ok(ticket) => {
                let (shared, _in_flight) = (self.shared.clone(), Some(in_flight));
                Ok(Begun { ticket, topic, shared, _in_flight })
            }
            Err(error) => Err(self.shared.refuse_append(&error, &topic)),
        })
    }

    fn subscribe(&mut self, ask: &Subscribe<'_>) -> Result<(), Refusal> {
        if self.is_draining() {
            return Err(Refusal::shutting_down());
        }
        self.grant.check(Right::Subscribe, ask.topic.as_str())?;
        if self.subs.contains(ask.sub) {
            let message = "a subscription of this connection has that number; choose another";
            return Err(Refusal::new(Code::DuplicateSubscription, message));
        }
        let limits = &self.shared.config.limits;
        let per_connection = limits.max_subscriptions_per_connection;
        if self.subs.len() >= per_connection {
            let what = "subscriptions of one connection";
            return Err(Refusal::limit(
                Code::TooManySubscriptions,
                per_connection,
                what,
                "limit.connection_subscriptions",
            ));
        }
        let leases = limits.max_leases_per_connection;
        if ask.lease.is_some() && self.subs.leases() >= leases {
            let what = "leases of one connection";
            return Err(Refusal::limit(
                Code::TooManyLeases,
                leases,
                what,
                "limit.connection_leases",
            ));
        }
        let made_before = self.topics_made;
        let topic = open(&self.shared, &mut self.topics_made, ask.topic, Purpose::Subscribe)?;
        let lease = ask.lease.as_ref().map(|lease| lease.name.as_str());
        self.subs.drop_drained(ask.sub, &topic, lease);
        let (reader, gap) = match self.begin_reading(&topic, ask) {
            Ok(opened) => opened,
            Err(refusal) => {
                // A request that fails has changed nothing, so the topic must not stay.
                if self.topics_made > made_before && self.shared.broker.delete_if_unused(&topic) {
                    self.topics_made = made_before;
                }
                return Err(refusal);
            }
        };
        self.counted += 1;
        let lease = match &reader {
            Reader::Lease(lease) => Some(lease.origin()),
            Reader::Cursor(_) => None,
        };
        if lease == Some(LeaseOrigin::TakenOver) {
            self.shared.revoked();
        }
        let (epoch, next) = (topic.log().epoch(), reader.offset());
        self.out.push(&Reply::Subscribed {
            request: ask.request,
            sub: ask.sub,
            epoch,
            next,
            tail: topic.log().next_offset(),
            // Version 1 cannot say it.
            lease: lease.filter(|_| self.version >= 2).map(describe::lease_origin),
        });
        if let Some((reason, first_missed)) = gap {
            self.out.push(&Reply::Gap { sub: ask.sub, reason, epoch, first_missed, next });
        }
        let new = NewSub { id: ask.sub, topic, reader, caught_up: ask.caught_up };
        let slot = self.subs.add(new, &self.waker, &self.shared.tails);
        self.subs.check_ready(slot, &mut self.out);
        Ok(())
    }

    /// Counts the subscription and opens its reader.
    fn begin_reading(
        &self,
        topic: &Arc<Topic>,
        ask: &Subscribe<'_>,
    ) -> Result<(Reader, Option<(GapReason, u64)>), Refusal> {
        let subscriptions = &self.shared.subscriptions;
        if !subscriptions.take(1) {
            let what = "subscriptions of all connections";
            let (code, max) = (Code::TooManySubscriptions, subscriptions.limit());
            return Err(Refusal::limit(code, max, what, "limit.subscriptions"));
        }
        open_reader(topic, ask).inspect_err(|_| subscriptions.give_back(1))
    }

    fn create(
        &mut self,
        name: TopicName<'_>,
        settings: &protocol::Settings,
        exist_ok: bool,
    ) -> Result<Begun, Refusal> {
        self.grant.check(Right::Manage, name.as_str())?;
        let broker = self.shared.broker.clone();
        if exist_ok && let Some(topic) = broker.topic(name.as_str()) {
            return Ok(self.written(topic.created(), topic));
        }
        may_make_topic(&self.shared, self.topics_made)?;
        let settings = describe::settings_in(settings);
        let (topic, made) = match exist_ok {
            true => broker.create_or_get(name.as_str(), &settings)?,
            false => (broker.create(name.as_str(), &settings)?, true),
        };
        self.topics_made += u32::from(made);
        Ok(self.written(topic.created(), topic))
    }

    /// Something that is told to the client once it is written down.
    fn written(&self, ticket: Ticket, topic: Arc<Topic>) -> Begun {
        Begun { ticket, topic, shared: self.shared.clone(), _in_flight: None }
    }

    fn close(&self, name: TopicName<'_>) -> Result<Begun, Refusal> {
        self.grant.check(Right::Manage, name.as_str())?;
        let (topic, ticket) = self.shared.broker.close_topic(name.as_str())?;
        Ok(self.written(ticket, topic))
    }

    fn describe(&mut self, request: u32, name: TopicName<'_>) -> Result<(), Refusal> {
        self.grant.check_sees(name.as_str())?;
        let Some(found) = self.shared.broker.topic(name.as_str()) else {
            let message = format!("no topic is named {name:?}; check the name");
            return Err(Refusal::new(Code::UnknownTopic, message));
        };
        let max_frame = self.shared.config.limits.max_frame;
        describe::describe(request, name, &found, self.version, max_frame, &mut self.out);
        Ok(())
    }

    fn delete(&mut self, name: TopicName<'_>) -> Result<(), Refusal> {
        self.grant.check(Right::Manage, name.as_str())?;
        self.shared.broker.delete(name.as_str())?;
        self.shared.revoked();
        Ok(())
    }

    /// Continues a held list of topics, as far as there is room for replies.
    pub(super) fn send_list(&mut self) {
        let limits = &self.shared.config.limits;
        while self.out.len() < limits.reply_bytes
            && let Some(HeldRequest::List(list)) = &mut self.held
        {
            let most = describe::topics_per_frame(limits.max_frame);
            // One more than is sent, to know whether there are more.
            let after = list.after.as_deref();
            let sees = |name: &str| self.grant.sees(name);
            let mut found = self.shared.broker.list_filtered(&list.prefix, after, most + 1, sees);
            let more = found.len() > most;
            found.truncate(most);
            describe::topics(list.request, &found, more, self.version, &mut self.out);
            if more {
                list.after = found.last().map(|topic| topic.name.clone());
            } else {
                self.held = None;
            }
        }
    }
}

/// The topic for `purpose`, created if it is missing and may be created by a connection that has made `made` topics.
fn open(
    shared: &Shared,
    made: &mut u32,
    name: TopicName<'_>,
    purpose: Purpose,
) -> Result<Arc<Topic>, Refusal> {
    if let Some(topic) = shared.broker.topic(name.as_str()) {
        return Ok(topic);
    }
    may_make_topic(shared, *made)?;
    let topic = shared.broker.open(name.as_str(), purpose)?;
    *made += 1;
    Ok(topic)
}

fn may_make_topic(shared: &Shared, made: u32) -> Result<(), Refusal> {
    if shared.is_draining() {
        return Err(Refusal::shutting_down());
    }
    let max = shared.config.limits.max_topics_per_connection;
    if made >= max {
        let what = "topics made by one connection";
        return Err(Refusal::limit(
            Code::TooManyTopics,
            max as usize,
            what,
            "limit.connection_topics",
        ));
    }
    Ok(())
}

/// Opens the subscription's reader. Also returns the gap if it could not start where it was asked to: the
/// reason, and the first offset that is missed.
fn open_reader(
    topic: &Arc<Topic>,
    ask: &Subscribe<'_>,
) -> Result<(Reader, Option<(GapReason, u64)>), Refusal> {
    let open = |start: Start| -> Result<Reader, LeaseOpenError> {
        match &ask.lease {
            None => topic
                .subscribe(start)
                .map(Reader::Cursor)
                .map_err(|error| LeaseOpenError::Log(LeaseError::Subscribe(error))),
            Some(lease) => {
                let options = LeaseOptions {
                    ttl: Duration::from_millis(lease.ttl_ms.into()),
                    start,
                    take_over: lease.take_over,
                };
                topic.lease(lease.name.as_str(), options).map(Reader::Lease)
            }
        }
    };
    // A lease that expired a while ago continues as one that is there: at its last commit, whatever was asked for.
    let expired = ask.lease.as_ref().and_then(|lease| topic.expired_lease(lease.name.as_str()));
    let asked = expired.map_or_else(|| start_in(ask.start), Start::At);
    let error = match open(asked) {
        // A gap that the holder before may not have been told.
        Ok(Reader::Lease(lease)) if lease.missed().is_some() => {
            let asked = lease.missed().unwrap_or_default();
            if ask.on_gap == OnGap::Error {
                let (first, epoch) = (lease.offset(), lease.epoch());
                return Err(SubscribeError::Collected { asked, first, epoch }.into());
            }
            return Ok((Reader::Lease(lease), Some((GapReason::Collected, asked))));
        }
        Ok(reader) => return Ok((reader, None)),
        Err(error) => error,
    };
    let gap = match (&error, ask.on_gap) {
        (LeaseOpenError::Log(LeaseError::Subscribe(error)), OnGap::Continue) => match *error {
            SubscribeError::Collected { asked, .. } => Some((GapReason::Collected, asked)),
            SubscribeError::WrongEpoch { .. } => match ask.start {
                protocol::Start::After { offset, .. } => {
                    Some((GapReason::OtherEpoch, offset.saturating_add(1)))
                }
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    match gap {
        Some(gap) => {
            let start = match &error {
                LeaseOpenError::Log(LeaseError::Subscribe(error)) => {
                    topic.start_after(asked, error)
                }
                _ => Start::Earliest,
            };
            let mut reader = open(start)?;
            if let (Reader::Lease(lease), (GapReason::Collected, first)) = (&mut reader, gap) {
                lease.note_missed(first);
            }
            Ok((reader, Some(gap)))
        }
        None => Err(error.into()),
    }
}

fn start_in(start: protocol::Start) -> Start {
    match start {
        protocol::Start::Next => Start::Next,
        protocol::Start::At(offset) => Start::At(offset),
        protocol::Start::After { epoch, offset } => Start::After { epoch, offset },
        protocol::Start::Last(records) => Start::Last(records),
        protocol::Start::Since(nanos) => Start::Since(UNIX_EPOCH + Duration::from_nanos(nanos)),
        protocol::Start::Earliest => Start::Earliest,
    }
}
