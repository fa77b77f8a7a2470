//! The settings of a topic, as in CREATE and DESCRIPTION.

use super::error::{DecodeError, Refusal};
use super::wire::{FieldReader, put_u16, put_u32, put_u64};
use crate::durability::Durability;
use crate::log::{Overflow, Retention};
use std::time::Duration;

/// How a topic retains and rejects records, and what they survive. `Default` leaves everything to the server.
///
/// In a CREATE, `None` and 0 stand for the server's default. They do not occur in a DESCRIPTION, with three exceptions: a
/// `memory_limit` of 0 means that the topic has no limit of its own, a `disk_limit` of 0 that it is not stored, and a
/// server that speaks version 1 does not say the durability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The size of one segment in bytes; 0 = the server's default.
    pub segment_bytes: u32,
    /// What happens at the memory limit; `None` = the server's default.
    pub overflow: Option<Overflow>,
    /// Which records are kept although every subscriber has passed them; `None` = the server's
    /// default.
    pub retention: Option<Retention>,
    /// How much memory the topic's segments may take, in bytes; 0 = the server's default.
    pub memory_limit: u64,
    /// What an acknowledgement means; `None` = the server's default. Since version 2.
    pub durability: Option<Durability>,
    /// How much room on the disk the topic's files may take, in bytes; 0 = the server's default. Since version 2.
    pub disk_limit: u64,
}

pub(super) const DEFAULT: u8 = 255;

/// The number of a durability on the wire.
pub(super) const fn durability_number(durability: Durability) -> u8 {
    match durability {
        Durability::Memory => 0,
        Durability::Written => 1,
        Durability::Synced => 2,
    }
}

/// The durability with this number.
pub(super) const fn durability(number: u8) -> Option<Durability> {
    match number {
        0 => Some(Durability::Memory),
        1 => Some(Durability::Written),
        2 => Some(Durability::Synced),
        _ => None,
    }
}

/// The age in whole milliseconds, as the wire format has it. An age below one millisecond counts as
/// one, because 0 has a different meaning.
fn millis(age: Duration) -> u64 {
    match u64::try_from(age.as_millis()) {
        Ok(0) => u64::from(!age.is_zero()),
        millis => millis.unwrap_or(u64::MAX),
    }
}

impl Settings {
    /// Whether they say anything that only version 2 can say.
    #[must_use]
    pub const fn need_version_2(&self) -> bool {
        self.durability.is_some() || self.disk_limit != 0
    }

    /// Appends them; the frame's flag says whether they are long.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, self.segment_bytes);
        out.push(match self.overflow {
            Some(Overflow::Block) => 0,
            Some(Overflow::Reject) => 1,
            Some(Overflow::Evict) => 2,
            None => DEFAULT,
        });
        let (kind, value) = match self.retention {
            Some(Retention::Nothing) => (0, 0),
            Some(Retention::Records(records)) => (1, records),
            Some(Retention::Bytes(bytes)) => (2, bytes),
            Some(Retention::Age(age)) => (3, millis(age)),
            Some(Retention::Everything) => (4, 0),
            None => (DEFAULT, 0),
        };
        out.push(kind);
        put_u16(out, 0);
        put_u64(out, value);
        put_u64(out, self.memory_limit);
        if self.need_version_2() {
            out.push(self.durability.map_or(DEFAULT, durability_number));
            out.extend_from_slice(&[0; 7]);
            put_u64(out, self.disk_limit);
        }
    }

    /// The outer error ends the connection; the inner one fails only the request. `is_long` is what the frame's flag says.
    pub(super) fn decode(
        reader: &mut FieldReader<'_>,
        is_long: bool,
    ) -> Result<Result<Self, Refusal>, DecodeError> {
        let segment_bytes = reader.u32()?;
        let overflow = reader.u8()?;
        let kind = reader.u8()?;
        reader.zero::<2>()?;
        let value = reader.u64()?;
        let memory_limit = reader.u64()?;
        let (number, disk_limit) = if is_long {
            let number = reader.u8()?;
            reader.zero::<7>()?;
            let disk_limit = reader.u64()?;
            // They would have two encodings.
            if number == DEFAULT && disk_limit == 0 {
                return Err(reader.malformed("its settings are long without need"));
            }
            (number, disk_limit)
        } else {
            (DEFAULT, 0)
        };
        let refuse = |what| Ok(Err(Refusal::Settings { what }));
        let overflow = match overflow {
            0 => Some(Overflow::Block),
            1 => Some(Overflow::Reject),
            2 => Some(Overflow::Evict),
            DEFAULT => None,
            _ => return refuse("overflow is 0 block, 1 reject, 2 evict or 255 default"),
        };
        let retention = match (kind, value) {
            (0, 0) => Some(Retention::Nothing),
            (1, records) => Some(Retention::Records(records)),
            (2, bytes) => Some(Retention::Bytes(bytes)),
            (3, ms) => Some(Retention::Age(Duration::from_millis(ms))),
            (4, 0) => Some(Retention::Everything),
            (DEFAULT, 0) => None,
            (0 | 4 | DEFAULT, _) => {
                return refuse("this retention takes no value; set the value to 0");
            }
            _ => return refuse("retention is 0 to 4 or 255 default"),
        };
        let durability = durability(number);
        if durability.is_none() && number != DEFAULT {
            return refuse("durability is 0 memory, 1 written, 2 synced or 255 default");
        }
        Ok(Ok(Self { segment_bytes, overflow, retention, memory_limit, durability, disk_limit }))
    }
}
