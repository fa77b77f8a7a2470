//! Random programs against a naive model: equal outputs, equal losses, and after every step exactly
//! the segments that the memory bound allows.
//!
//! The model (`model` below) is a list of segments, each a range of offsets and the number of those
//! that stand in it. It says what every operation answers and which segments are left. `world` takes
//! the steps; the fuzz target for log operations includes both files.

mod model;
mod world;

use proptest::collection::vec;
use proptest::prelude::*;
use psa::{Overflow, Retention};
use world::{From, Op, World};

fn from() -> impl Strategy<Value = From> {
    prop_oneof![
        Just(From::Earliest),
        Just(From::Next),
        (-6i64..30).prop_map(From::At),
        (0u64..12).prop_map(From::Last),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0usize..8;
    let records = 1usize..10;
    prop_oneof![
        12 => (1u64..3).prop_map(|records| Op::Append { records }),
        3 => (0u64..10).prop_map(|records| Op::Append { records }),
        3 => from().prop_map(Op::Subscribe),
        10 => (who.clone(), records.clone()).prop_map(|(who, records)| Op::Read { who, records }),
        2 => (who.clone(), from()).prop_map(|(who, to)| Op::Seek { who, to }),
        2 => who.clone().prop_map(|who| Op::Drop { who }),
        2 => who.clone().prop_map(|who| Op::Resume { who }),
        2 => (0usize..2, from()).prop_map(|(name, from)| Op::Take { name, from }),
        5 => (who.clone(), records).prop_map(|(who, records)| Op::ReadLease { who, records }),
        3 => (who.clone(), 0u64..6).prop_map(|(who, behind)| Op::Commit { who, behind }),
        1 => who.clone().prop_map(|who| Op::Detach { who }),
        1 => who.prop_map(|who| Op::Release { who }),
        1 => (0usize..2).prop_map(|name| Op::End { name }),
        1 => Just(Op::Close),
    ]
}

fn retention() -> impl Strategy<Value = Retention> {
    prop_oneof![
        3 => Just(Retention::Nothing),
        1 => (0u64..20).prop_map(Retention::Records),
        1 => (0u64..160).prop_map(Retention::Bytes),
        1 => Just(Retention::Everything),
    ]
}

/// A limit in segments, and what happens there.
fn limit() -> impl Strategy<Value = Option<(u64, Overflow)>> {
    let overflow =
        prop_oneof![Just(Overflow::Reject), Just(Overflow::Evict), Just(Overflow::Block)];
    prop_oneof![Just(None), (2u64..6, overflow).prop_map(Some)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn random_programs_behave_like_the_model(
        retention in retention(),
        limit in limit(),
        ops in vec(op(), 1..200),
    ) {
        let mut world = World::new(retention, limit);
        for op in ops {
            world.step(op);
            world.check();
        }
        world.finish(retention);
    }
}
