//! The life of a segment, as `docs/study/algorithm.md` shows it: the states of `src/log`, and what moves a
//! segment from one to the next.

use psa_suite::draw::states::{self, Arrow, State, Way};
use psa_suite::draw::{Colour, Frame};

/// Nobody but one owner has it.
const OWNED: Colour = Colour::Line(5);
/// It is in the chain.
const HELD: Colour = Colour::Line(1);
/// It is off the chain, and may still be looked at.
const LOOKED_AT: Colour = Colour::Line(3);

const STATES: [State<'static>; 8] = [
    state("fresh", "one publisher owns it", (0, 0), OWNED),
    state("open", "next = null", (1, 0), HELD),
    state("sealed", "its records are final", (2, 0), HELD),
    state("closed", "takes no pins any more", (2, 1), HELD),
    state("unlinked", "maybe announced", (1, 1), LOOKED_AT),
    state("reclaimed", "nobody can see it", (1, 2), OWNED),
    state("pooled", "cleared, for reuse", (0, 2), OWNED),
    state("freed", "back at the allocator", (2, 2), OWNED),
];

const fn state(
    name: &'static str,
    what: &'static str,
    place: (usize, usize),
    colour: Colour,
) -> State<'static> {
    State { name, what, place, colour }
}

const ARROWS: [Arrow<'static>; 12] = [
    arrow(None, "fresh", Way::In, &["allocated"], "segment.rs: allocate"),
    arrow(Some("fresh"), "open", Way::Across, &["linked as the last"], "chain.rs: new, link"),
    arrow(
        Some("fresh"),
        "pooled",
        Way::LeftOf(-30.0),
        &["another one was", "linked first (under", "a limit: freed)"],
        "memory.rs: put_by",
    ),
    arrow(
        Some("open"),
        "sealed",
        Way::Across,
        &["full: before the next", "is linked; or the end"],
        "chain.rs: link, close",
    ),
    arrow(
        Some("sealed"),
        "closed",
        Way::LeftOf(-34.0),
        &["the head: pins 0 → CLOSED,", "if retention lets go of it", "or its room is needed"],
        "collect.rs: collect, let_go_of_retained",
    ),
    Arrow {
        is_forced: true,
        ..arrow(
            Some("sealed"),
            "closed",
            Way::RightOf(34.0),
            &["the head, at the", "limit: pins or not"],
            "collect.rs: evict",
        )
    },
    arrow(
        Some("closed"),
        "unlinked",
        Way::Across,
        &["tail is moved off it,", "then head past it"],
        "collect.rs: unlink",
    ),
    arrow(
        Some("unlinked"),
        "reclaimed",
        Way::RightOf(0.0),
        &["nobody announces it: at once,", "or when the last one ends"],
        "reclaim.rs: retire, sweep",
    ),
    arrow(
        Some("reclaimed"),
        "pooled",
        Way::Across,
        &["records are dropped;", "the pool has room"],
        "memory.rs: take_back, pool",
    ),
    arrow(
        Some("reclaimed"),
        "freed",
        Way::Across,
        &["odd size, pool full,", "or the budget is tight"],
        "memory.rs: take_back, free",
    ),
    arrow(Some("pooled"), "fresh", Way::RightOf(30.0), &["taken again"], "memory.rs: take_pooled"),
    arrow(
        Some("pooled"),
        "freed",
        Way::Under,
        &["its room is wanted for another size, or by another log of the budget"],
        "memory.rs: obtain, empty_pool",
    ),
];

const fn arrow(
    from: Option<&'static str>,
    to: &'static str,
    way: Way,
    when: &'static [&'static str],
    code: &'static str,
) -> Arrow<'static> {
    Arrow { from, to, way, when, code, is_forced: false }
}

/// The picture.
pub(crate) fn picture() -> Result<String, String> {
    let frame = Frame {
        title: "The life of a segment".to_owned(),
        subtitle: "its states, when it goes from one to the next, and the function of src/log that does it"
            .to_owned(),
        caption: vec![
            "Nothing here was measured. Dashed: what a memory limit that evicts does to cursors that stand in \
             its way. The last segment of a closed log stays sealed. A log that is dropped frees every segment, \
             wherever it is (chain.rs: drop)."
                .to_owned(),
        ],
    };
    let key = [
        (HELD, "in the chain: found from head and tail, held by pins and by retention"),
        (LOOKED_AT, "only those who announced it before it was unlinked may still look at it"),
        (OWNED, "one owner: a publisher, the collector, the pool"),
    ];
    states::draw(&frame, &STATES, &ARROWS, &key)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use psa_suite::machine::repository;

    use super::*;

    /// A name that is not in the code any more is a picture of another log.
    #[test]
    fn every_function_in_the_picture_is_in_the_code() {
        for arrow in &ARROWS {
            let (file, functions) = arrow.code.split_once(": ").unwrap();
            let text = fs::read_to_string(repository().join("src/log").join(file)).unwrap();
            for function in functions.split(", ") {
                let begins = |after| text.contains(&format!("fn {function}{after}"));
                let is_there = begins('(') || begins('<');
                assert!(is_there, "to {}: {file} has no {function}", arrow.to);
            }
        }
    }

    #[test]
    fn every_state_is_reached_and_drawn() {
        for state in &STATES {
            assert!(ARROWS.iter().any(|arrow| arrow.to == state.name), "{}", state.name);
        }
        let svg = picture().unwrap();
        assert!(STATES.iter().all(|state| svg.contains(&format!(">{}</text>", state.name))));
    }
}
