//! The contents of a state file: a header and two slots. No I/O; the parent module explains the format.

use super::JournalError;
use crate::format;
use psa::Position;

/// Sizes in bytes of the header, of one slot, and of the whole file.
const HEADER: usize = 1024;
const SLOT: usize = 512;
const FILE: usize = HEADER + 2 * SLOT;
const MAGIC: &str = "psa-state 1 topic=";

/// A subscriber's position, and the length of its output at that position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The next record that is wanted; the output holds all records before it.
    pub(super) position: Position,
    /// The output's length when it holds exactly those records; `None` if the output is a stream.
    pub(super) output: Option<u64>,
}

/// The contents of a state file.
#[derive(Debug)]
pub(super) struct Image {
    topic: String,
    /// The current position, stored in slot `sequence % 2`.
    pub(super) mark: Option<Mark>,
    /// Checksum of the last bytes of the output at that position.
    pub(super) tail: u64,
    sequence: u64,
}

impl Image {
    /// A state without a position.
    pub(super) fn new(topic: &str) -> Image {
        Image { topic: topic.to_string(), mark: None, tail: checksum(b""), sequence: 0 }
    }

    /// Parses a state file.
    pub(super) fn parse(contents: &[u8], topic: &str) -> Result<Image, JournalError> {
        if contents.len() != FILE {
            return Err(JournalError::Damaged);
        }
        let header = std::str::from_utf8(&contents[..HEADER]).map_err(|_| JournalError::Damaged)?;
        let found = header.strip_prefix(MAGIC).map(str::trim_end).ok_or(JournalError::Damaged)?;
        let found: String = serde_json::from_str(found).map_err(|_| JournalError::Damaged)?;
        if found != topic {
            return Err(JournalError::OtherTopic(found));
        }
        let mut image = Image::new(topic);
        for index in 0..2u64 {
            let at = HEADER + index as usize * SLOT;
            let Some(slot) = parse_slot(&contents[at..at + SLOT]) else {
                continue;
            };
            // This program never writes a slot with the wrong parity.
            if slot.sequence % 2 == index && slot.sequence > image.sequence {
                image = Image { topic: image.topic, ..slot };
            }
        }
        if image.mark.is_some() { Ok(image) } else { Err(JournalError::Damaged) }
    }

    /// Moves to a new position. Returns the offset and the bytes to write: they replace the slot of the
    /// position before the current one.
    pub(super) fn advance(&mut self, mark: Mark, tail: u64) -> (u64, [u8; SLOT]) {
        self.sequence += 1;
        self.mark = Some(mark);
        self.tail = tail;
        (self.slot_at() as u64, self.slot())
    }

    /// The whole file, with the current position as its only slot.
    pub(super) fn contents(&self) -> Vec<u8> {
        let mut file = vec![b' '; FILE];
        // 255 bytes of name without control characters are at most 510 bytes of JSON.
        let topic = serde_json::Value::String(self.topic.clone()).to_string();
        let header = format!("{MAGIC}{topic}");
        file[..header.len()].copy_from_slice(header.as_bytes());
        file[HEADER - 1] = b'\n';
        file[HEADER + SLOT - 1] = b'\n';
        file[FILE - 1] = b'\n';
        let at = self.slot_at();
        file[at..at + SLOT].copy_from_slice(&self.slot());
        file
    }

    fn slot_at(&self) -> usize {
        HEADER + (self.sequence % 2) as usize * SLOT
    }

    fn slot(&self) -> [u8; SLOT] {
        let mut slot = [b' '; SLOT];
        slot[SLOT - 1] = b'\n';
        if let Some(Mark { position: Position { epoch, next }, output }) = self.mark {
            let output = output.map_or("stream".to_string(), |len| len.to_string());
            let text = format!(
                "seq={} epoch={} next={next} output={output} tail={:016x} check=",
                self.sequence,
                format::epoch(epoch),
                self.tail
            );
            let text = format!("{text}{:016x}", checksum(text.as_bytes()));
            slot[..text.len()].copy_from_slice(text.as_bytes());
        }
        slot
    }
}

/// Parses a slot; `None` if it is empty, torn, or anything other than what [`Image::slot`] writes.
fn parse_slot(slot: &[u8]) -> Option<Image> {
    let text = std::str::from_utf8(slot).ok()?.trim_end();
    let at = text.rfind("check=")? + "check=".len();
    let (covered, check) = text.split_at(at);
    if check != format!("{:016x}", checksum(covered.as_bytes())) {
        return None;
    }
    let mut fields = covered.split(' ');
    let mut field = |name: &str| fields.next()?.strip_prefix(name)?.strip_prefix('=');
    let sequence = field("seq")?.parse().ok()?;
    let epoch = u64::from_str_radix(field("epoch")?.strip_prefix("0x")?, 16).ok()?;
    let next = field("next")?.parse().ok()?;
    let output = match field("output")? {
        "stream" => None,
        len => Some(len.parse().ok()?),
    };
    let tail = u64::from_str_radix(field("tail")?, 16).ok()?;
    let mark = Some(Mark { position: Position { epoch, next }, output });
    Some(Image { topic: String::new(), mark, tail, sequence })
}

/// FNV-1a, 64 bits: detects torn writes and mistaken files, not deliberate changes.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(next: u64) -> Image {
        let mut image = Image::new("a \"topic\" é");
        image.advance(Mark { position: Position { epoch: 7, next }, output: Some(100) }, 1);
        image
    }

    #[test]
    fn contents_read_back_and_are_text() {
        let image = image(u64::MAX);
        let contents = image.contents();
        assert_eq!(contents.len(), FILE);
        assert!(std::str::from_utf8(&contents).is_ok());
        let again = Image::parse(&contents, "a \"topic\" é").unwrap();
        assert_eq!((again.mark, again.tail, again.sequence), (image.mark, 1, 1));
    }

    #[test]
    fn the_longest_name_fits() {
        let topic = "\"".repeat(255);
        let mut image = Image::new(&topic);
        image.advance(
            Mark { position: Position { epoch: u64::MAX, next: u64::MAX }, output: Some(u64::MAX) },
            u64::MAX,
        );
        assert!(Image::parse(&image.contents(), &topic).is_ok());
    }

    #[test]
    fn every_single_changed_byte_of_the_current_slot_is_noticed() {
        let mut image = image(1);
        let mut contents = image.contents();
        let (at, slot) =
            image.advance(Mark { position: Position { epoch: 7, next: 2 }, output: Some(200) }, 2);
        let at = at as usize;
        contents[at..at + SLOT].copy_from_slice(&slot);
        assert_eq!(Image::parse(&contents, &image.topic).unwrap().mark.unwrap().position.next, 2);
        let used = slot.iter().position(|byte| *byte == b' ').unwrap_or(SLOT);
        for changed in 0..used {
            let mut contents = contents.clone();
            contents[at + changed] ^= 0x11;
            let found = Image::parse(&contents, &image.topic).unwrap();
            assert_eq!(found.mark.unwrap().position.next, 1, "byte {changed}");
        }
    }

    #[test]
    fn wrong_files_are_refused() {
        let contents = image(1).contents();
        assert!(matches!(
            Image::parse(&contents, "other"),
            Err(JournalError::OtherTopic(topic)) if topic == "a \"topic\" é"
        ));
        for wrong in [&b""[..], &contents[1..], &[0; FILE], &[b' '; FILE]] {
            assert!(matches!(Image::parse(wrong, "other"), Err(JournalError::Damaged)));
        }
        let mut both_torn = contents;
        both_torn[HEADER..].fill(b'x');
        assert!(matches!(Image::parse(&both_torn, "a \"topic\" é"), Err(JournalError::Damaged)));
    }
}
