//! One wait for all that stand at the end of a topic.
//!
//! A record that comes for a thousand subscribers wakes a thousand tasks. If each of them waited at the
//! log by itself, each would register there, and each would hand the call on to two more before it
//! writes: that is good for a publisher, whose bill stays the same, and costs every subscriber. So those
//! that have found nothing to read sit down in the topic's *room*. One of them *leads*: it alone is
//! registered with the log, under the room's waker. When that rings, a task that the server keeps for
//! this rings all that sit there, and the room is empty: a *round* is over.
//!
//! # Why nobody is forgotten
//!
//! Whoever sits without being registered relies on the leader. Three things hold, each kept under the
//! room's lock:
//!
//! 1. If somebody sits in the room, it has a leader, or a call is on its way that will ring everybody.
//! 2. A leader was made before it looked, and looks before it rests: it is registered then, or it has
//!    found something, and calls. If it goes away instead, it appoints another one, which is rung, so
//!    that it looks.
//! 3. Nobody relies on a leader that stands further ahead. Whoever stands further ahead than the leader
//!    has read a record that the leader was waiting for, so it calls. (Whoever stands behind has records
//!    to read, and does not sit down at all.)
//!
//! A record is committed, then its publisher notifies. If a leader was registered at that time, the room
//! is called; if none was, the next one looks after the commit, finds it, and calls. What is not a record
//! (the end of the log, a lease that changes hands) is notified in the same way.
//!
//! A log hands its calls on from waiter to waiter, so whoever is registered and rung looks at its log
//! again, as everywhere ([`Seat::registered`]).

use std::{
    collections::HashMap, future::poll_fn, sync::PoisonError, task::Context, task::Poll,
    task::Waker,
};

use slab::Slab;

use super::bell::{Bell, SubBell};
use crate::{
    broker::Topic,
    sync::{Arc, Mutex, MutexGuard},
};

/// Up to so many subscriptions of a topic wait by themselves: a call is then one step shorter, which a
/// hundred notice and a thousand do not (docs/benchmarks.md).
const BY_THEMSELVES: usize = 128;

/// How many are rung before the tasks that were rung have their turn.
const AT_A_TIME: usize = 128;

/// The rooms of all topics that somebody subscribes to.
pub(super) struct Rooms {
    by_themselves: usize,
    /// Rung with the slots of the rooms whose rounds are over.
    bell: Arc<Bell>,
    register: Mutex<Register>,
}

#[derive(Default)]
struct Register {
    /// Slots by the address of the topic, which its room keeps alive.
    by_topic: HashMap<usize, usize>,
    rooms: Slab<Arc<Room>>,
}

/// Where the subscriptions of one topic sit.
struct Room {
    topic: Arc<Topic>,
    bell: Arc<SubBell>,
    /// The same bell as the log knows it.
    waker: Waker,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Subscriptions of the topic.
    seats: usize,
    /// Counts the times that the room was emptied.
    round: u64,
    sitting: Slab<Sitting>,
    leader: Option<Leader>,
}

struct Sitting {
    bell: Arc<SubBell>,
    offset: u64,
}

#[derive(Clone, Copy)]
struct Leader {
    key: usize,
    offset: u64,
}

/// A subscription's place in its topic's room.
pub(super) struct Seat {
    rooms: Arc<Rooms>,
    room: Arc<Room>,
    bell: Arc<SubBell>,
    /// Where it sits: the round and the key. Of an earlier round: it was rung since.
    ticket: Option<(u64, usize)>,
    /// Whether the log knows a waker of this subscription, which must look again when it is rung then.
    registered: bool,
}

/// How a subscription waits.
enum Wait {
    /// Registered with the log under its own waker.
    Alone,
    /// Registered under the room's.
    Registered,
    /// It relies on the leader.
    Sitting,
}

impl Default for Rooms {
    fn default() -> Self {
        Self::new(BY_THEMSELVES)
    }
}

impl Rooms {
    /// Rooms in which more than so many wait together.
    pub(super) fn new(by_themselves: usize) -> Self {
        Self { by_themselves, bell: Arc::default(), register: Mutex::default() }
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for a subscription that `bell` calls.
    pub(super) fn enter(self: &Arc<Self>, topic: &Arc<Topic>, bell: Arc<SubBell>) -> Seat {
        let mut register = self.register();
        let Register { by_topic, rooms } = &mut *register;
        let slot = *by_topic.entry(address(topic)).or_insert_with(|| {
            let entry = rooms.vacant_entry();
            let slot = entry.key();
            let number = u32::try_from(slot).expect("fewer than 2^32 topics");
            let bell = SubBell::new(self.bell.clone(), number);
            let waker = Waker::from(bell.clone());
            let state = Mutex::default();
            entry.insert(Arc::new(Room { topic: topic.clone(), bell, waker, state }));
            slot
        });
        let room = rooms[slot].clone();
        room.state().seats += 1;
        drop(register);
        Seat { rooms: self.clone(), room, bell, ticket: None, registered: false }
    }

    /// Rings those in the rooms that were called. Never ends; the server keeps a task for it.
    pub(super) async fn serve(&self) {
        let (mut called, mut to_ring) = (Vec::new(), Vec::new());
        poll_fn(|cx| self.poll_serve(cx, &mut called, &mut to_ring)).await
    }

    /// One step of [`serve`](Self::serve), with the memory that it keeps from step to step.
    pub(super) fn poll_serve(
        &self,
        cx: &mut Context<'_>,
        called: &mut Vec<u32>,
        to_ring: &mut Vec<Arc<SubBell>>,
    ) -> Poll<()> {
        self.bell.listen(cx.waker(), called);
        for slot in called.drain(..) {
            // It may be gone, and its slot another room's by now, which is rung for nothing then.
            let room = self.register().rooms.get(slot as usize).cloned();
            if let Some(room) = room {
                // Before it is emptied: who sits down after that is the next call's.
                room.bell.reset();
                room.empty_into(to_ring);
            }
        }
        let now = to_ring.len().min(AT_A_TIME);
        to_ring.drain(..now).for_each(|bell| Waker::from(bell).wake());
        if to_ring.is_empty() {
            to_ring.shrink_to(AT_A_TIME);
        } else {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// A seat is given up.
    fn leave(&self, room: &Room) {
        let mut register = self.register();
        let left = {
            let mut state = room.state();
            state.seats -= 1;
            state.seats
        };
        if left == 0
            && let Some(slot) = register.by_topic.remove(&address(&room.topic))
        {
            register.rooms.remove(slot);
        }
    }
}

fn address(topic: &Arc<Topic>) -> usize {
    Arc::as_ptr(topic) as usize
}

impl Room {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the round: everybody who sits here is to be rung.
    fn empty_into(&self, to_ring: &mut Vec<Arc<SubBell>>) {
        let mut state = self.state();
        state.round += 1;
        state.leader = None;
        to_ring.extend(state.sitting.drain().map(|sitting| sitting.bell));
    }

    /// Has everybody rung, by the task that is there for it.
    fn call(&self) {
        self.waker.wake_by_ref();
    }
}

impl State {
    /// Takes one away. True if it led; nobody does then.
    fn get_up(&mut self, key: usize) -> bool {
        self.sitting.remove(key);
        let led = self.leader.is_some_and(|leader| leader.key == key);
        if led {
            self.leader = None;
        }
        led
    }
}

impl Seat {
    /// What calls the subscription: to be reset before each look.
    pub(super) fn bell(&self) -> &SubBell {
        &self.bell
    }

    /// Whether there is something to read for a subscription that stands at `offset`, as `look` finds,
    /// which registers the waker that it is given if there is not. If not, the subscription's bell rings
    /// when there is.
    ///
    /// `look` is not asked if it is known to find nothing, unless it has to be: `must_look`.
    pub(super) fn is_ready(
        &mut self,
        offset: u64,
        own: &Waker,
        must_look: bool,
        look: impl FnOnce(&Waker) -> bool,
    ) -> bool {
        let waker = match self.sit_down(offset) {
            Wait::Sitting if !must_look && !self.registered => return false,
            Wait::Sitting | Wait::Registered => &self.room.waker,
            Wait::Alone => own,
        };
        // Not under the room's lock: whoever looks may have to wake others, by code that is not ours.
        let ready = look(waker);
        self.registered = !ready;
        if ready && self.stand_up() {
            self.room.call();
        }
        ready
    }

    fn sit_down(&mut self, offset: u64) -> Wait {
        let mut state = self.room.state();
        if let Some(key) = self.key(&state) {
            // Appointed, or rung for another reason.
            debug_assert_eq!(state.sitting[key].offset, offset, "who sits reads nothing");
            return Wait::Registered;
        }
        if state.sitting.is_empty() && state.seats <= self.rooms.by_themselves {
            return Wait::Alone;
        }
        let leader = state.leader;
        if leader.is_some_and(|leader| offset < leader.offset) {
            return Wait::Alone;
        }
        let key = state.sitting.insert(Sitting { bell: self.bell.clone(), offset });
        self.ticket = Some((state.round, key));
        let Some(leader) = leader else {
            state.leader = Some(Leader { key, offset });
            return Wait::Registered;
        };
        drop(state);
        if offset > leader.offset {
            self.room.call();
        }
        Wait::Sitting
    }

    /// Where it sits, unless it was rung since it sat down.
    fn key(&self, state: &State) -> Option<usize> {
        self.ticket.filter(|(round, _)| *round == state.round).map(|(_, key)| key)
    }

    /// Gets up, if it sits. True if it led, and others rely on that.
    fn stand_up(&mut self) -> bool {
        let mut state = self.room.state();
        let Some(key) = self.key(&state) else { return false };
        self.ticket = None;
        state.get_up(key) && !state.sitting.is_empty()
    }

    /// Gets up for good. If it led, another one does now, and is to be rung.
    fn hand_over(&mut self) -> Option<Arc<SubBell>> {
        let mut state = self.room.state();
        let key = self.key(&state)?;
        self.ticket = None;
        if !state.get_up(key) {
            return None;
        }
        // The last one: when all go in the order in which they came, each finds another one at once.
        let (key, sitting) = state.sitting.iter().next_back()?;
        let (bell, offset) = (sitting.bell.clone(), sitting.offset);
        state.leader = Some(Leader { key, offset });
        Some(bell)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(next) = self.hand_over() {
            Waker::from(next).wake();
        }
        self.rooms.leave(&self.room);
    }
}
