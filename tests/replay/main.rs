//! Random programs against a naive model: equal outputs, equal losses, and after every step exactly
//! the segments that the memory bound allows, and the bytes for them, counted in the allocator.
//!
//! The model (`model` below) is a list of segments, each a range of offsets and the number of those
//! that stand in it. It says what every operation answers and which segments are left. `world` takes
//! the steps; the fuzz target for log operations includes both files. `log` is `src/log`, included with
//! clocks that the programs move (`sync` here). What depends on the time alone is tested beside them (`hours`).

#[allow(dead_code, unreachable_pub, unused_imports, reason = "programs use a part of the log")]
#[path = "../../src/log/mod.rs"]
mod log;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "as above")]
mod sync;

mod hours;
mod meter;
mod model;
mod world;

use log::{Overflow, Retention, Start};
use proptest::collection::vec;
use proptest::prelude::*;
use sync::time::{self, Duration, SystemTime};
use world::{From, Machine, Op, World};

const MACHINE: Machine = Machine {
    pass: time::advance,
    since: |passed| Start::Since(SystemTime::after(passed)),
    allocated: |call| allocation_counter::measure(call).bytes_current,
};

fn from() -> impl Strategy<Value = From> {
    prop_oneof![
        Just(From::Earliest),
        Just(From::Next),
        (-6i64..30).prop_map(From::At),
        (0u64..12).prop_map(From::Last),
        (0u64..12).prop_map(From::HoursAgo),
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
        2 => (0usize..2, from(), 0u64..8)
            .prop_map(|(name, from, hours)| Op::Take { name, from, hours }),
        5 => (who.clone(), records).prop_map(|(who, records)| Op::ReadLease { who, records }),
        3 => (who.clone(), 0u64..6).prop_map(|(who, behind)| Op::Commit { who, behind }),
        1 => who.clone().prop_map(|who| Op::Detach { who }),
        1 => who.prop_map(|who| Op::Release { who }),
        1 => (0usize..2).prop_map(|name| Op::End { name }),
        1 => Just(Op::Close),
        3 => (1u64..4).prop_map(|hours| Op::Pass { hours }),
        2 => Just(Op::Maintain),
    ]
}

fn retention() -> impl Strategy<Value = Retention> {
    prop_oneof![
        3 => Just(Retention::Nothing),
        1 => (0u64..20).prop_map(Retention::Records),
        // Around whole records: a byte more has to keep a segment more.
        1 => (0u64..20, 0u64..3).prop_map(|(records, more)| Retention::Bytes(records * 8 + more)),
        2 => (0u64..10).prop_map(|hours| Retention::Age(Duration::from_secs(hours * 3600))),
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
        time::reset();
        let mut world = World::new(retention, limit, Some(MACHINE));
        for op in ops {
            world.step(op);
            world.check();
        }
        world.finish(retention);
    }
}
