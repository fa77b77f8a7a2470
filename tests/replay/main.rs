//! Random programs against a naive model: equal outputs, equal losses, and after every step exactly
//! the segments that the memory bound allows, and the bytes for them, counted in the allocator.
//!
//! The model (`model` below) is a list of segments, each a range of offsets and the number of those
//! that stand in it. It says what every operation answers and which segments are left, and its `books` what
//! is pooled, and what is left of a budget. `kind` is what the records are: values, or bytes. `world` takes
//! the steps; the fuzz target for log operations includes these files. `shared` are two logs with one budget.
//! `log` is `src/log`, included with
//! clocks that the programs move (`sync` here). What depends on the time alone is tested beside them (`hours`).

#[allow(dead_code, unreachable_pub, unused_imports, reason = "programs use a part of the log")]
#[path = "../../src/log/mod.rs"]
mod log;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "as above")]
mod sync;

mod books;
mod hours;
mod kind;
mod meter;
mod model;
mod shared;
mod world;

use kind::{Bytes, Kind, Values};
use log::{Overflow, Retention, Start};
use model::Rules;
use proptest::collection::vec;
use proptest::prelude::*;
use shared::Pair;
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

/// How a log is built. A limit is in segments, and goes with what happens there.
fn rules(limited: impl Strategy<Value = Option<u64>>) -> impl Strategy<Value = Rules> {
    let overflow =
        prop_oneof![Just(Overflow::Reject), Just(Overflow::Evict), Just(Overflow::Block)];
    let pool = prop_oneof![Just(0), 1u64..4];
    (retention(), overflow, limited, pool).prop_map(|(retention, overflow, limit, pool)| Rules {
        retention,
        overflow,
        limit,
        pool,
    })
}

fn limit() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![1 => Just(None), 3 => (2u64..6).prop_map(Some)]
}

fn run(kind: impl Kind, rules: Rules, ops: Vec<Op>) {
    time::reset();
    let mut world = World::new(kind, rules, Some(MACHINE));
    for op in ops {
        world.step(op);
        world.check();
    }
    world.finish(rules.retention);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn random_programs_behave_like_the_model(rules in rules(limit()), ops in vec(op(), 1..200)) {
        run(Values, rules, ops);
    }

    #[test]
    fn random_programs_of_bytes_behave_like_the_model(
        seed in any::<u64>(),
        rules in rules(limit()),
        ops in vec(op(), 1..200),
    ) {
        run(Bytes { seed }, rules, ops);
    }

    #[test]
    fn random_programs_of_two_logs_with_one_budget_behave_like_the_models(
        more in 0u64..4000,
        seed in any::<u64>(),
        // Seldom with a limit of its own.
        one in rules(prop_oneof![3 => Just(None), 1 => (2u64..6).prop_map(Some)]),
        other in rules(prop_oneof![3 => Just(None), 1 => (2u64..6).prop_map(Some)]),
        ops in vec((any::<bool>(), op()), 1..300),
    ) {
        time::reset();
        let mut pair = Pair::new(more, Bytes { seed }, [one, other], MACHINE);
        for (first, mut op) in ops {
            // Of two leases that end at once, either may go first, and what is pooled depends on that.
            if let Op::Take { name, .. } | Op::End { name } = &mut op {
                *name = 0;
            }
            pair.step(first, op);
            pair.check();
        }
        pair.finish();
    }
}
