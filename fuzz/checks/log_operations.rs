//! What has to hold for programs of log operations: all that the naive model of `tests/replay` says.
//!
//! Two bytes say how the log is built, then each operation is a byte and its arguments. Bytes are
//! taken modulo what there is, so every input is a program.

use super::kind::{Bytes, Kind, Values};
use super::log::{Overflow, Retention};
use super::model::Rules;
use super::world::{From, Op, World};

/// More operations say nothing new and take long.
const MOST_OPERATIONS: usize = 400;

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn below(&mut self, n: u8) -> Option<u8> {
        Some(self.next()? % n)
    }

    fn from(&mut self) -> Option<From> {
        Some(match self.below(4)? {
            0 => From::Earliest,
            1 => From::Next,
            2 => From::At(i64::from(self.below(36)?) - 6),
            _ => From::Last(self.below(12)?.into()),
        })
    }

    fn op(&mut self) -> Option<Op> {
        let kind = self.below(24)?;
        Some(match kind {
            0..=4 => Op::Append { records: u64::from(self.below(2)?) + 1 },
            5 => Op::Append { records: self.below(10)?.into() },
            6 | 7 => Op::Subscribe(self.from()?),
            8..=11 => {
                Op::Read { who: self.below(8)?.into(), records: usize::from(self.below(9)?) + 1 }
            }
            12 => Op::Seek { who: self.below(8)?.into(), to: self.from()? },
            13 => Op::Drop { who: self.below(8)?.into() },
            14 => Op::Resume { who: self.below(8)?.into() },
            15 => Op::Take { name: self.below(2)?.into(), from: self.from()?, hours: 24 },
            16 | 17 => Op::ReadLease {
                who: self.below(8)?.into(),
                records: usize::from(self.below(9)?) + 1,
            },
            18 | 19 => Op::Commit { who: self.below(8)?.into(), behind: self.below(6)?.into() },
            20 => Op::Detach { who: self.below(8)?.into() },
            21 => Op::Release { who: self.below(8)?.into() },
            22 => Op::End { name: self.below(2)?.into() },
            // Seldom: nothing is appended afterwards.
            _ if self.below(8)? == 0 => Op::Close,
            _ => Op::Append { records: 4 },
        })
    }
}

/// Runs the program that the bytes spell.
pub(crate) fn check(data: &[u8]) {
    let mut input = Input(data);
    let (Some(kept), Some(limited)) = (input.next(), input.next()) else { return };
    let keep = u64::from(kept / 4);
    let retention = match kept % 4 {
        0 => Retention::Nothing,
        1 => Retention::Records(keep % 20),
        2 => Retention::Bytes(keep * 3),
        _ => Retention::Everything,
    };
    let segments = u64::from(limited / 4 % 4) + 2;
    let (limit, overflow) = match limited % 4 {
        0 => (None, Overflow::default()),
        1 => (Some(segments), Overflow::Reject),
        2 => (Some(segments), Overflow::Evict),
        _ => (Some(segments), Overflow::Block),
    };
    let pool = u64::from(limited / 32 % 4);
    let rules = Rules { retention, overflow, limit, pool };
    if limited / 16 % 2 == 0 {
        run(Values, rules, input);
    } else {
        // Which lengths and looks they have is not worth more of the input.
        run(Bytes { seed: u64::from(limited / 128) }, rules, input);
    }
}

fn run(kind: impl Kind, rules: Rules, mut input: Input<'_>) {
    let mut world = World::new(kind, rules, None);
    for _ in 0..MOST_OPERATIONS {
        let Some(op) = input.op() else { break };
        world.step(op);
        world.check();
    }
    world.finish(rules.retention);
}
