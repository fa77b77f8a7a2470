//! One connection for many subscriptions: receiving, reconnecting, resuming all of them.
//!
//! # Protocol
//!
//! As in [`follow`](super::follow), there is no task: [`Crowd::poll_keyed_step`] is a state machine, and all
//! of its progress is in its fields. What each subscription has received and committed is its
//! [`Progress`], the same as that of a single one.
//!
//! Each subscription has a [`Key`](SubscriptionKey), which it keeps, and a number on the connection,
//! which is new for each SUBSCRIBE. A number leads to a key until the last frame for it has arrived:
//! the CLOSED, or the answer to an UNSUBSCRIBE. Frames for a number whose subscription was removed are
//! late and are dropped. The server answers in order, so the requests without an answer are a queue.
//!
//! Everything that a subscription must send is sent by [`Crowd::send_due`], for the keys in `due`. So
//! a step costs the same however many subscriptions there are.
//!
//! # Errors
//!
//! What the server refuses to one subscription, or does wrong to it, ends that one alone. If the
//! refusal may pass and the subscription was running before, it asks again after a pause, over the same
//! connection. An error of the connection concerns all: they wait for the next one together, and each
//! decides how long.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::apply::{Frame, News};
use super::backoff::Retry;
use super::config::Config;
use super::conn::Conn;
use super::dial::{Subscribed, subscribe_request};
use super::error::ClientError;
use super::line::Line;
use super::many::SubscriptionKey;
use super::member::{Ask, Asked, Member, Requests, State, odd_answer};
use super::options::SubscribeOptions;
use super::progress::{Progress, Step};
use super::shelf::{self, Source};
use crate::log::{CommitRange, Position};
use crate::protocol::Request;

type Keyed = shelf::Keyed<SubscriptionKey>;

pub(super) struct Crowd {
    config: Arc<Config>,
    phase: Phase,
    retry: Retry,
    members: BTreeMap<SubscriptionKey, Member>,
    next_key: u64,
    /// Who the numbers on this connection belong to, also of subscriptions that were removed.
    numbers: BTreeMap<u32, SubscriptionKey>,
    last_number: u32,
    requests: Requests,
    /// Members that may have something to send.
    due: BTreeSet<SubscriptionKey>,
    /// When members that were refused ask again.
    pauses: BTreeSet<(Instant, SubscriptionKey)>,
    /// Fires when the first of the pauses ends.
    alarm: Option<Pin<Box<Sleep>>>,
    /// What comes next, before anything that is received.
    reports: VecDeque<Keyed>,
    /// How often it connected.
    connections: u64,
    /// How often there was no connection, and why the last time.
    losses: u64,
    last_loss: Option<ClientError>,
}

enum Phase {
    /// There is no connection, because nobody needs one.
    Idle,
    Up(Box<Line>),
    Down(Pin<Box<Sleep>>),
    Dialing(Pin<Box<dyn Future<Output = Result<Conn, ClientError>> + Send>>),
}

impl Crowd {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self {
            phase: Phase::Idle,
            retry: Retry::new(&config),
            config,
            members: BTreeMap::new(),
            next_key: 0,
            numbers: BTreeMap::new(),
            last_number: 0,
            requests: Requests::default(),
            due: BTreeSet::new(),
            pauses: BTreeSet::new(),
            alarm: None,
            reports: VecDeque::new(),
            connections: 0,
            losses: 0,
            last_loss: None,
        }
    }

    /// Adds a subscription, which is sent when this is polled next.
    pub(super) fn add(
        &mut self,
        topic: &str,
        options: SubscribeOptions,
    ) -> Result<SubscriptionKey, ClientError> {
        // Bad names are found before anything is sent.
        subscribe_request(Requests::UNHEARD, 0, topic, &options)?;
        self.next_key += 1;
        let key = SubscriptionKey(self.next_key);
        let member = Member::new(&self.config, topic, options);
        self.members.insert(key, member);
        self.due.insert(key);
        Ok(key)
    }

    /// Removes a subscription. A wanted commit is sent first, if the server can accept it already.
    pub(super) fn remove(&mut self, key: SubscriptionKey, release: bool) {
        let Some(mut member) = self.members.remove(&key) else { return };
        self.reports.retain(|(of, _)| *of != key);
        if let (State::Running(sub), Some(progress), Phase::Up(line)) =
            (member.state, &mut member.progress, &mut self.phase)
        {
            // Requests are carried out in order, so the one in flight is not waited for.
            progress.committing = None;
            if let Some(offset) = progress.start_commit() {
                let request = Requests::UNHEARD;
                line.say(&Request::Commit { request, sub, offset, ack: false });
            }
        }
        if let Some(number) = member.number() {
            self.unsubscribe(number, release);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = SubscriptionKey> {
        self.members.keys().copied()
    }

    pub(super) fn topic(&self, key: SubscriptionKey) -> Option<&str> {
        self.members.get(&key).map(|member| &*member.topic)
    }

    pub(super) fn progress(&self, key: SubscriptionKey) -> Option<&Progress> {
        self.members.get(&key)?.progress.as_ref()
    }

    pub(super) fn taken(&self, key: SubscriptionKey) -> Option<Position> {
        self.members.get(&key)?.taken
    }

    pub(super) fn take(&mut self, key: SubscriptionKey, position: Position) {
        if let Some(member) = self.members.get_mut(&key) {
            member.taken = Some(position);
        }
    }

    /// The caller has taken the end of a subscription, if it has ended.
    pub(super) fn end_taken(&mut self, key: SubscriptionKey) {
        if self.is_over(key) {
            self.members.remove(&key);
        }
    }

    pub(super) fn is_over(&self, key: SubscriptionKey) -> bool {
        self.members.get(&key).is_none_or(|member| member.state == State::Over)
    }

    pub(super) const fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up(_))
    }

    pub(super) const fn reconnections(&self) -> u64 {
        self.connections.saturating_sub(1)
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.config.request_timeout
    }

    pub(super) const fn losses(&self) -> u64 {
        self.losses
    }

    /// Why the connection was lost the last time.
    pub(super) fn last_loss(&self) -> ClientError {
        self.last_loss.clone().unwrap_or_else(ClientError::cut)
    }

    /// Returns the first offset that the commit does not cover.
    pub(super) fn want_commit(
        &mut self,
        key: SubscriptionKey,
        range: impl CommitRange,
    ) -> Result<u64, ClientError> {
        let member = self.members.get_mut(&key).ok_or(ClientError::Ended)?;
        let end = member.want_commit(range)?;
        self.due.insert(key);
        Ok(end)
    }

    /// Continues until there is something for the caller.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Option<Keyed>> {
        loop {
            if let Some(report) = self.reports.pop_front() {
                return Poll::Ready(Some(report));
            }
            // The first one that is not done ends the search: that is usually the first one.
            if self.members.values().all(Member::is_done) && self.requests.is_empty() {
                if self.members.is_empty() {
                    // Nobody may poll from here on, and then the server would find it idle.
                    self.disconnect(Phase::Idle);
                }
                return Poll::Ready(None);
            }
            match &mut self.phase {
                Phase::Idle => self.dial(),
                Phase::Down(pause) => {
                    ready!(pause.as_mut().poll(cx));
                    self.dial();
                }
                Phase::Dialing(dialing) => match ready!(dialing.as_mut().poll(cx)) {
                    Ok(conn) => {
                        self.connections += 1;
                        self.phase = Phase::Up(Line::new(conn, self.config.keepalive));
                        self.due.extend(self.members.keys());
                    }
                    Err(error) => self.lose(error),
                },
                Phase::Up(_) => match ready!(self.poll_up(cx)) {
                    Ok(Some(step)) => return Poll::Ready(Some(step)),
                    Ok(None) => {}
                    Err(error) => self.lose(error),
                },
            }
        }
    }

    fn dial(&mut self) {
        let config = Arc::clone(&self.config);
        let dialing = async move { Conn::open(&config).await };
        self.phase = Phase::Dialing(Box::pin(dialing));
    }

    /// Forgets what belongs to the connection.
    fn disconnect(&mut self, phase: Phase) {
        self.phase = phase;
        self.numbers.clear();
        self.requests = Requests::default();
        self.due.clear();
        self.pauses.clear();
        self.alarm = None;
    }

    /// There is no connection, or it has ended: all wait for the next one, or end.
    fn lose(&mut self, error: ClientError) {
        let delay = self.retry.delay();
        self.losses += 1;
        for (key, member) in &mut self.members {
            if let Err(error) = member.lose(&error, delay) {
                self.reports.push_back((*key, Err(error)));
            }
        }
        tracing::debug!(%error, ?delay, "subscriptions connect again");
        self.last_loss = Some(error);
        self.disconnect(Phase::Down(Box::pin(sleep(delay))));
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Keyed>, ClientError>> {
        self.end_pauses(cx);
        self.send_due();
        let Phase::Up(line) = &mut self.phase else {
            return Poll::Ready(Ok(None));
        };
        match ready!(line.poll_frame(cx))? {
            Some((frame, consumed)) => Poll::Ready(self.apply(frame, consumed)),
            None => Poll::Ready(Ok(None)),
        }
    }

    /// Lets members whose pause has ended ask again.
    fn end_pauses(&mut self, cx: &mut Context<'_>) {
        while let Some((end, key)) = self.pauses.first().copied() {
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(end)));
            if alarm.deadline() != end {
                alarm.as_mut().reset(end);
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return;
            }
            self.pauses.pop_first();
            // It may have been removed meanwhile.
            if let Some(member) = self.members.get_mut(&key) {
                member.state = State::Waiting;
                self.due.insert(key);
            }
        }
    }

    /// Queues what the members in `due` have to send.
    fn send_due(&mut self) {
        while let Some(key) = self.due.pop_first() {
            let Phase::Up(line) = &mut self.phase else { return };
            let Some(member) = self.members.get_mut(&key) else { continue };
            match (member.state, &mut member.progress) {
                (State::Waiting, progress) => {
                    let number = free_number(&mut self.last_number, &self.numbers);
                    let request = self.requests.ask(number, Ask::Subscribe);
                    let resumed = progress.as_ref().map(Progress::options_to_resume);
                    let options = resumed.as_ref().unwrap_or(&member.options);
                    let subscribe = subscribe_request(request, number, &member.topic, options);
                    line.say(&subscribe.expect("checked when it was added"));
                    self.numbers.insert(number, key);
                    member.state = State::Asked(number);
                }
                (State::Running(sub), Some(progress)) => {
                    if let Some(offset) = progress.start_commit() {
                        let request = self.requests.ask(sub, Ask::Commit);
                        line.say(&Request::Commit { request, sub, offset, ack: true });
                    }
                }
                _ => {}
            }
        }
    }

    fn unsubscribe(&mut self, sub: u32, release: bool) {
        if let Phase::Up(line) = &mut self.phase {
            let request = self.requests.ask(sub, Ask::Unsubscribe);
            line.say(&Request::Unsubscribe { request, sub, release });
        }
    }

    /// Applies one frame. An error ends the connection.
    fn apply(&mut self, frame: Frame, consumed: usize) -> Result<Option<Keyed>, ClientError> {
        let step = match frame {
            Frame::For(number, news) => match self.apply_news(number, news)? {
                // The bytes stay in the inbox until the caller consumes them.
                step @ Some((_, Ok(Step::Chunk { .. }))) => return Ok(step),
                step => step,
            },
            Frame::Subscribed(request, number, answer) => {
                match self.requests.answered(request)? {
                    Asked { number: asked, what: Ask::Subscribe, .. } if asked == number => {}
                    _ => return Err(odd_answer()),
                }
                self.subscribed(number, &answer)
            }
            Frame::Done(request) => match self.requests.answered(request)? {
                Asked { number, what: Ask::Commit, .. } => self.committed(number)?,
                Asked { number, what: Ask::Unsubscribe, .. } => {
                    self.numbers.remove(&number);
                    None
                }
                Asked { what: Ask::Subscribe, .. } => return Err(odd_answer()),
            },
            Frame::Refused(Requests::UNHEARD, _) | Frame::Nothing => None,
            Frame::Refused(request, error) => {
                let asked = self.requests.answered(request)?;
                self.refused(&asked, error)
            }
            Frame::Ends(error) => return Err(error),
            Frame::Odd => return Err(odd_answer()),
        };
        self.consume(consumed);
        Ok(step)
    }

    /// The member that has this number now. `None` if it was removed or has ended: the frame is late.
    fn member(&mut self, number: u32) -> Option<(SubscriptionKey, &mut Member)> {
        let key = *self.numbers.get(&number)?;
        let member = self.members.get_mut(&key)?;
        (member.number() == Some(number)).then_some((key, member))
    }

    fn apply_news(&mut self, number: u32, news: News) -> Result<Option<Keyed>, ClientError> {
        if !self.numbers.contains_key(&number) {
            let what = "it delivered to a subscription that nobody made";
            return Err(ClientError::Violation { what });
        }
        let is_last = matches!(news, News::Closed(..));
        let Phase::Up(line) = &self.phase else { return Ok(None) };
        let key = self.numbers[&number];
        let member = self.members.get_mut(&key).filter(|m| m.state == State::Running(number));
        let Some(member) = member else { return Ok(None) };
        let Some(progress) = &mut member.progress else { return Ok(None) };
        let applied = progress.apply(news, line.received());
        let (is_over, owes) = (progress.over, progress.owes_commit());
        if is_over || applied.is_err() {
            member.state = State::Over;
            match is_last {
                true => drop(self.numbers.remove(&number)),
                false => self.unsubscribe(number, false),
            }
        } else if owes {
            // The record to commit may have been delivered just now.
            self.due.insert(key);
        }
        Ok(applied.transpose().map(|step| (key, step)))
    }

    fn subscribed(&mut self, number: u32, answer: &Subscribed) -> Option<Keyed> {
        self.retry.succeed();
        let (key, member) = self.member(number)?;
        let subscribed = member.subscribe(number, answer);
        let gap = member.progress.as_mut().and_then(|progress| progress.local_gap.take());
        self.reports.extend(gap.map(|gap| (key, Ok(Step::Gap(gap)))));
        if self.is_over(key) {
            self.unsubscribe(number, false);
        }
        self.due.insert(key);
        match subscribed {
            Ok(awaited) => awaited.then_some((key, Ok(Step::Confirmed))),
            Err(error) => Some((key, Err(error))),
        }
    }

    fn committed(&mut self, number: u32) -> Result<Option<Keyed>, ClientError> {
        let Some((key, Member { progress: Some(progress), .. })) = self.member(number) else {
            return Ok(None);
        };
        let step = progress.confirm()?;
        self.due.insert(key);
        Ok(Some((key, Ok(step))))
    }

    fn refused(&mut self, asked: &Asked, error: ClientError) -> Option<Keyed> {
        let number = asked.number;
        let found = self.member(number);
        match asked.what {
            Ask::Commit => {
                let (key, member) = found?;
                member.progress.as_mut()?.give_up_commit();
                Some((key, Err(error)))
            }
            Ask::Subscribe => {
                let refused = found.map(|(key, member)| (key, member.refuse(error)));
                self.numbers.remove(&number);
                match refused? {
                    (key, Ok(pause)) => {
                        self.pauses.insert((Instant::now() + pause, key));
                        None
                    }
                    (key, Err(error)) => Some((key, Err(error))),
                }
            }
            // It had ended already.
            Ask::Unsubscribe => {
                self.numbers.remove(&number);
                None
            }
        }
    }
}

impl Source for Crowd {
    type Key = SubscriptionKey;

    fn poll_keyed_step(&mut self, cx: &mut Context<'_>) -> Poll<Option<Keyed>> {
        self.poll_step(cx)
    }

    fn received_bytes(&self) -> &[u8] {
        match &self.phase {
            Phase::Up(line) => line.received(),
            _ => &[],
        }
    }

    fn consume(&mut self, count: usize) {
        if let Phase::Up(line) = &mut self.phase {
            line.consume(count);
        }
    }

    fn owes_commit(&self) -> bool {
        !self.due.is_empty() || !self.requests.is_empty()
    }
}

/// A number that no frame on this connection can be for.
fn free_number(last: &mut u32, numbers: &BTreeMap<u32, SubscriptionKey>) -> u32 {
    loop {
        *last = last.wrapping_add(1);
        if !numbers.contains_key(last) {
            return *last;
        }
    }
}
