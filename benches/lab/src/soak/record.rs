//! The contents of the soak's records. They depend only on the topic and the record's number, so that a reader
//! knows what each record must be, and notices a record of another topic or with another number.

/// The bytes that every record has: its number and its topic.
const FIXED: usize = 16;
/// The upper bound (exclusive) of the number of bytes that follow them.
const MOST: u64 = 768;

/// Replaces the contents of `out` with record `number` of `topic`.
pub(super) fn make(topic: u64, number: u64, out: &mut Vec<u8>) {
    let word = mix(topic, number);
    out.clear();
    out.extend(number.to_le_bytes());
    out.extend(topic.to_le_bytes());
    let end = FIXED + (word % MOST) as usize;
    while out.len() < end {
        out.extend(word.to_le_bytes());
    }
    out.truncate(end);
}

/// Whether these bytes are record `number` of `topic`.
pub(super) fn is_right(topic: u64, number: u64, bytes: &[u8]) -> bool {
    let word = mix(topic, number);
    let Some((fixed, body)) = bytes.split_at_checked(FIXED) else { return false };
    fixed[..8] == number.to_le_bytes()
        && fixed[8..] == topic.to_le_bytes()
        && body.len() as u64 == word % MOST
        && body.chunks(8).all(|piece| piece == &word.to_le_bytes()[..piece.len()])
}

/// The finaliser of SplitMix64: consecutive numbers give unrelated words.
fn mix(topic: u64, number: u64) -> u64 {
    let mut word = number.wrapping_add(topic.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_itself_and_no_other() {
        let mut record = Vec::new();
        for number in 0..500 {
            make(3, number, &mut record);
            assert!(is_right(3, number, &record));
            assert!(!is_right(4, number, &record) && !is_right(3, number + 1, &record));
            let last = record.len() - 1;
            assert!(!is_right(3, number, &record[..last]));
            record[last] ^= 1;
            assert!(!is_right(3, number, &record), "number {number}");
        }
    }
}
