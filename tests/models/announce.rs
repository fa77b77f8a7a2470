//! Announcements by themselves: the slots of a thread, and whose way they are in.

use crate::explore::explore;

#[allow(dead_code, reason = "the models need a part of it")]
#[path = "../../src/log/announce.rs"]
mod shipped;

use shipped::{Announced, Slot};
use shuttle::thread;

/// More objects than a thread's record has slots.
const MANY: usize = 3 * crate::sync::SLOTS;

/// Two at once, which borrow records beside each other.
fn twice(run: fn()) {
    let other = thread::spawn(run);
    run();
    other.join().unwrap();
}

#[test]
fn a_thread_announces_more_than_its_record_has_slots_for() {
    explore(|| twice(announce_many));

    fn announce_many() {
        let structure = 0;
        let mut objects = [0u8; MANY];
        let slots: Vec<_> = (0..MANY).map(|_| Slot::of(&structure)).collect();
        for (slot, object) in slots.iter().zip(&mut objects) {
            assert!(!Announced::look().names(object, &structure));
            slot.announce(object);
            assert!(Announced::look().names(object, &structure));
        }
        for (slot, object) in slots.iter().zip(&mut objects) {
            slot.clear();
            assert!(!Announced::look().names(object, &structure));
        }
    }
}

#[test]
fn an_announcement_is_in_the_way_of_its_own_structure_alone() {
    explore(|| twice(announce_in_turn));

    fn announce_in_turn() {
        let (one, other, mut object) = (1, 2, 0u8);
        for (mine, foreign) in [(&one, &other), (&other, &one)] {
            let slot = Slot::of(mine);
            slot.announce(&mut object);
            assert!(Announced::look().names(&mut object, mine));
            assert!(!Announced::look().names(&mut object, foreign));
            slot.clear();
        }
    }
}

/// While one thread ends a void announcement of another structure's object, and announces that object itself, whoever
/// looks for that finds either nothing, or what is really announced.
#[test]
fn a_slot_that_changes_its_structure_names_nothing_in_between() {
    explore(|| {
        static OBJECT: u8 = 0;
        static STRUCTURES: [u8; 2] = [1, 2];
        let object = std::ptr::from_ref(&OBJECT).cast_mut();
        let slot = Slot::of(&STRUCTURES[0]);
        slot.announce(object);
        let looker = thread::spawn(move || {
            Announced::look().names(std::ptr::from_ref(&OBJECT).cast_mut(), &STRUCTURES[1])
        });
        slot.clear();
        drop(slot);
        let slot = Slot::of(&STRUCTURES[1]);
        slot.announce(std::ptr::from_ref(&STRUCTURES[1]).cast_mut());
        assert!(!looker.join().unwrap(), "nobody announced it for this structure");
        slot.clear();
    });
}
