//! The codec against arbitrary values and arbitrary bytes, and `docs/protocol.md` against the codec.
#![cfg(feature = "protocol")]

mod frames;

use frames::*;
use proptest::prelude::*;
use psa::protocol::*;

/// Limits that let a record of any size through, so that mutations reach every check.
fn wide() -> DecodeLimits {
    DecodeLimits { max_frame: 1 << 20, max_record: u32::MAX }
}

/// Whatever decodes must encode to the very same bytes: there is one form for each frame.
fn check_any(input: &[u8]) {
    if let Ok(Decoded::Frame { value, consumed }) = decode_request(input, &wide()) {
        let mut again = Vec::new();
        value.encode(&mut again);
        assert_eq!(again, input[..consumed]);
    }
    if let Ok(Decoded::Frame { value, consumed }) = decode_reply(input, &wide()) {
        let mut again = Vec::new();
        value.encode(&mut again);
        assert_eq!(again, input[..consumed]);
    }
}

/// How many bytes a decoder asks for; `None` if it found a frame or an error.
fn wanted<T>(found: Result<Decoded<T>, DecodeError>) -> Option<usize> {
    match found {
        Ok(Decoded::NeedMore { at_least }) => Some(at_least),
        _ => None,
    }
}

/// Every shorter input asks for more, and for the right amount; never a frame, never an error.
fn check_cuts(bytes: &[u8], wanted: impl Fn(&[u8]) -> Option<usize>) {
    for cut in 0..bytes.len() {
        let expected = if cut < HEADER { HEADER } else { bytes.len() };
        assert_eq!(wanted(&bytes[..cut]), Some(expected), "cut at {cut}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn requests_come_back(parts in parts(), behind in proptest::collection::vec(any::<u8>(), 0..30)) {
        let mut bytes = encode_request(&parts);
        let size = bytes.len();
        bytes.extend(behind);
        with_request(&parts, |sent| {
            let expected = Decoded::Frame { value: sent, consumed: size };
            assert_eq!(decode_request(&bytes, &wide()), Ok(expected));
        });
        check_cuts(&bytes[..size], |cut| wanted(decode_request(cut, &wide())));
        // No request is a reply.
        prop_assert!(decode_reply(&bytes, &wide()).is_err());
    }

    #[test]
    fn replies_come_back(parts in parts(), behind in proptest::collection::vec(any::<u8>(), 0..30)) {
        let mut bytes = encode_reply(&parts);
        let size = bytes.len();
        bytes.extend(behind);
        with_reply(&parts, |sent| {
            let expected = Decoded::Frame { value: sent, consumed: size };
            assert_eq!(decode_reply(&bytes, &wide()), Ok(expected));
        });
        check_cuts(&bytes[..size], |cut| wanted(decode_reply(cut, &wide())));
        prop_assert!(decode_request(&bytes, &wide()).is_err());
    }

    #[test]
    fn scattered_records_encode_like_packed_ones(parts in parts(), ack in any::<bool>()) {
        let (ends, payload) = columns(&parts.records, 0);
        let topic = TopicName::new(&parts.name).unwrap();
        let records = Records::new(0, &ends, &payload).unwrap();
        let mut packed = Vec::new();
        Request::Publish(Publish { request: 7, topic, ack, records }).encode(&mut packed);
        let mut scattered = Vec::new();
        let each = parts.records.iter().map(Vec::as_slice);
        encode_publish(&mut scattered, 7, topic, ack, each).unwrap();
        prop_assert_eq!(scattered, packed);
    }

    #[test]
    fn skipping_is_what_iterating_further_is(all in records(), start in any::<u32>(), skip in 0..25_usize) {
        let total = all.iter().map(Vec::len).sum::<usize>() as u32;
        let (ends, payload) = columns(&all, start.min(u32::MAX - total));
        let records = Records::new(start.min(u32::MAX - total), &ends, &payload).unwrap();
        let rest: Vec<&[u8]> = records.skip_first(skip).into_iter().flatten().collect();
        let expected: Vec<&[u8]> = records.iter().skip(skip).collect();
        prop_assert_eq!(rest, expected);
        if let Some(rest) = records.skip_first(skip) {
            prop_assert_eq!(Records::new(rest.start(), rest.ends(), rest.payload()), Ok(rest));
        }
    }

    #[test]
    fn random_bytes_are_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check_any(&bytes);
    }

    /// A plausible header in front, so that the bodies are reached.
    #[test]
    fn random_bodies_are_harmless(
        kind in prop_oneof![0..=12_u8, 0x80..=0x8e_u8],
        flags in 0..4_u8,
        body in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(255), 0..4_u8], 0..300),
    ) {
        let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
        bytes.extend([kind, flags, 0, 0]);
        bytes.extend(body);
        check_any(&bytes);
    }

    #[test]
    fn mutated_frames_are_harmless(
        parts in parts(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        short in any::<bool>(),
    ) {
        for mut bytes in [encode_request(&parts), encode_reply(&parts)] {
            for (at, value) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            check_any(&bytes);
            if short {
                // A body that was cut, under a header that agrees with it.
                bytes.truncate(HEADER.max(cut.index(bytes.len())));
                let len = (bytes.len() - HEADER) as u32;
                bytes[..4].copy_from_slice(&len.to_le_bytes());
                check_any(&bytes);
            }
        }
    }

    /// Each integer at its limit, in each place of each frame.
    #[test]
    fn extreme_integers_are_harmless(parts in parts(), at in any::<prop::sample::Index>()) {
        for bytes in [encode_request(&parts), encode_reply(&parts)] {
            let at = at.index(bytes.len());
            for extreme in [u64::MAX, u64::MAX - 1, 1 << 63, u32::MAX.into(), 1 << 31, 0] {
                let mut bytes = bytes.clone();
                let end = bytes.len().min(at + 8);
                bytes[at..end].copy_from_slice(&extreme.to_le_bytes()[..end - at]);
                check_any(&bytes);
            }
        }
    }
}

fn error_of(bytes: &[u8], limits: &DecodeLimits) -> DecodeError {
    // The high bit of the kind says the direction.
    if bytes[4] & 0x80 == 0 {
        decode_request(bytes, limits).unwrap_err()
    } else {
        decode_reply(bytes, limits).unwrap_err()
    }
}

#[test]
fn every_kind_is_exercised() {
    let mut kinds: Vec<u8> = all_frames().iter().map(|bytes| bytes[4]).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let expected: Vec<u8> = (0x01..=0x0b).chain(0x81..=0x8d).collect();
    assert_eq!(kinds, expected);
}

#[test]
fn unknown_flags_and_reserved_bytes_are_errors_for_every_kind() {
    for bytes in all_frames() {
        let mut flagged = bytes.clone();
        flagged[5] |= 0x80;
        assert!(matches!(
            error_of(&flagged, &wide()),
            DecodeError::UnknownFlags { flags: 0x80, .. }
        ));
        for at in [6, 7] {
            let mut reserved = bytes.clone();
            reserved[at] = 1;
            let error = error_of(&reserved, &wide());
            assert!(matches!(error, DecodeError::Malformed { .. }), "{error}");
            assert_eq!(error.code(), Code::BadFrame);
            assert_eq!(error.refused(), None);
        }
    }
}

#[test]
fn left_over_and_missing_bytes_are_errors_for_every_kind() {
    for bytes in all_frames() {
        for size in [bytes.len() - 1, bytes.len() + 1] {
            let mut wrong = bytes.clone();
            wrong.resize(size, 0);
            wrong[..4].copy_from_slice(&((size - HEADER) as u32).to_le_bytes());
            let error = error_of(&wrong, &wide());
            // Kinds of one fixed size know from the header that the frame is too large.
            let expected =
                matches!(error, DecodeError::Malformed { .. } | DecodeError::FrameTooLarge { .. });
            assert!(expected, "{error}");
        }
    }
}

#[test]
fn the_size_is_judged_from_the_header_alone() {
    for bytes in all_frames() {
        let mut header = bytes[..HEADER].to_vec();
        header[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = error_of(&header, &wide());
        let size = u64::from(u32::MAX) + 8;
        assert!(
            matches!(error, DecodeError::FrameTooLarge { size: s, max, .. } if s == size && max <= 1 << 20),
            "{error}"
        );
        assert_eq!(error.code(), Code::FrameTooLarge);
        // Exactly the limit passes, one byte less does not.
        let exact = DecodeLimits { max_frame: bytes.len() as u32, max_record: u32::MAX };
        let ok = if bytes[4] & 0x80 == 0 {
            decode_request(&bytes, &exact).is_ok()
        } else {
            decode_reply(&bytes, &exact).is_ok()
        };
        assert!(ok);
        let tight = DecodeLimits { max_frame: bytes.len() as u32 - 1, ..exact };
        assert!(matches!(error_of(&bytes[..HEADER], &tight), DecodeError::FrameTooLarge { .. }));
    }
}

#[test]
fn only_the_big_kinds_can_be_big() {
    for bytes in all_frames() {
        let mut header = bytes[..HEADER].to_vec();
        header[..4].copy_from_slice(&4_000_u32.to_le_bytes());
        let big = matches!(bytes[4], 0x02 | 0x83 | 0x8c | 0x8d);
        let needs_more = if bytes[4] & 0x80 == 0 {
            decode_request(&header, &wide()).is_ok()
        } else {
            decode_reply(&header, &wide()).is_ok()
        };
        assert_eq!(needs_more, big, "kind {:#04x}", bytes[4]);
    }
}

#[test]
fn a_bad_name_refuses_the_request_and_leaves_the_connection() {
    for kind in 0..REQUESTS {
        let mut bytes = encode_request(&example(kind));
        let Some(at) = bytes.windows(5).position(|window| window == b"topic") else {
            continue;
        };
        bytes[at] = b'\n';
        let error = decode_request(&bytes, &wide()).unwrap_err();
        assert_eq!(error.refused(), Some((7, bytes.len())), "{error}");
        assert_eq!(error.code(), Code::BadName);
        bytes[at] = 0xff;
        assert_eq!(decode_request(&bytes, &wide()).unwrap_err().code(), Code::BadName);
    }
    let mut bytes = encode_request(&example(2));
    let at = bytes.windows(5).position(|w| w == b"lease").unwrap();
    bytes[at] = 0x7f;
    let error = decode_request(&bytes, &wide()).unwrap_err();
    assert_eq!(error.refused(), Some((7, bytes.len())));
}

#[test]
fn an_oversized_record_refuses_the_batch_alone() {
    let bytes = encode_request(&example(1));
    let limits = |max_record| DecodeLimits { max_frame: 1 << 20, max_record };
    assert!(decode_request(&bytes, &limits(5)).is_ok());
    let error = decode_request(&bytes, &limits(4)).unwrap_err();
    assert_eq!(error.refused(), Some((7, bytes.len())));
    assert_eq!(error.to_string(), "a record has 5 bytes, 4 are allowed; send smaller records");
}

#[test]
fn impossible_settings_refuse_the_create_alone() {
    let bytes = encode_request(&example(5));
    let settings = bytes.len() - 24;
    for (at, value) in [(4, 3), (5, 5), (8, 1)] {
        let mut bytes = bytes.clone();
        bytes[settings + at] = value;
        let error = decode_request(&bytes, &wide()).unwrap_err();
        assert_eq!(error.refused(), Some((7, bytes.len())), "{error}");
        assert_eq!(error.code(), Code::BadSettings);
    }
}

#[test]
fn impossible_durabilities_refuse_the_create_alone() {
    let bytes = encode_request(&stored_example(5));
    let long = bytes.len() - 16;
    for number in 3..255 {
        let mut bytes = bytes.clone();
        bytes[long] = number;
        let error = decode_request(&bytes, &wide()).unwrap_err();
        assert_eq!(error.refused(), Some((7, bytes.len())), "{error}");
        assert_eq!(error.code(), Code::BadSettings);
    }
    // A default is one, if the limit says something.
    let mut default = bytes;
    default[long] = 255;
    assert!(decode_request(&default, &wide()).is_ok());
}

#[test]
fn what_version_2_added_has_one_encoding() {
    let [create, topics, description] = stored_frames();
    let malformed = |bytes: &[u8]| {
        let error = error_of(bytes, &wide());
        assert!(matches!(error, DecodeError::Malformed { .. }), "{error}");
    };
    // Long settings that say nothing; a reserved byte; long ones without the flag, and short ones with it.
    let long = create.len() - 16;
    let mut empty = create.clone();
    empty[long] = 255;
    empty[long + 8..].fill(0);
    malformed(&empty);
    let mut reserved = create.clone();
    reserved[long + 1] = 1;
    malformed(&reserved);
    for flag in [0, 1, 3] {
        for mut bytes in [create.clone(), encode_request(&example(5))] {
            if bytes[5] != flag && (bytes[5] ^ flag) & 2 != 0 {
                bytes[5] = flag;
                malformed(&bytes);
            }
        }
    }
    // A durability that nobody knows, in a reply; durabilities of no topics.
    let mut unknown = topics.clone();
    let at = unknown.len() - 9;
    unknown[at] = 255;
    malformed(&unknown);
    let mut none = encode_reply(&Parts { b: 0, ..stored_example(11) });
    assert_eq!(none[5], 1);
    none[5] |= 2;
    malformed(&none);
    // A failure that is longer than any encoder writes.
    let text = "t".repeat(MAX_TEXT);
    let mut long = encode_reply(&Parts { text, b: 0, ..stored_example(12) });
    assert_eq!(description[5], 3);
    let at = long.len() - 4 - MAX_TEXT - 2;
    assert_eq!(long[at..at + 2], (MAX_TEXT as u16).to_le_bytes());
    long[at..at + 2].copy_from_slice(&(MAX_TEXT as u16 + 1).to_le_bytes());
    long.insert(at + 2, b't');
    let length = long.len() as u32 - 8;
    long[..4].copy_from_slice(&length.to_le_bytes());
    malformed(&long);
}

/// `version-1.txt` has a frame of each kind, as the library wrote it when there was only version 1.
#[test]
fn frames_of_version_1_are_what_they_were() {
    let settings = Settings {
        segment_bytes: 4096,
        overflow: Some(Overflow::Evict),
        retention: Some(Retention::Records(1000)),
        memory_limit: 1 << 20,
        ..Settings::default()
    };
    let mut kinds = 0..REQUESTS + REPLIES;
    for (line, kind) in include_str!("version-1.txt").lines().zip(kinds.by_ref()) {
        let (who, bytes) = line.split_once(' ').unwrap();
        let bytes: Vec<u8> =
            bytes.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        if kind < REQUESTS {
            assert_eq!(who, "client");
            let parts = Parts { settings, ..example(kind) };
            assert_eq!(encode_request(&parts), bytes, "request {kind}");
            with_request(&parts, |request| {
                let expected = Decoded::Frame { value: request, consumed: bytes.len() };
                assert_eq!(decode_request(&bytes, &wide()), Ok(expected));
            });
        } else {
            assert_eq!(who, "server");
            let parts = Parts { settings, ..example(kind - REQUESTS) };
            assert_eq!(encode_reply(&parts), bytes, "reply {}", kind - REQUESTS);
            with_reply(&parts, |reply| {
                let expected = Decoded::Frame { value: reply, consumed: bytes.len() };
                assert_eq!(decode_reply(&bytes, &wide()), Ok(expected));
            });
        }
    }
    assert_eq!(kinds.len(), 0, "a frame of each kind");
}

#[test]
fn counts_beyond_the_frame_are_errors() {
    // PUBLISH: the count follows header, request and name; DELIVER: header and sub; TOPICS: header
    // and request.
    for (mut bytes, at) in [
        (encode_request(&example(1)), 8 + 4 + 6),
        (encode_reply(&example(2)), 8 + 4),
        (encode_reply(&example(11)), 8 + 4),
    ] {
        for count in [u32::MAX, 1 << 30, 1 << 31, 3, 0] {
            bytes[at..at + 4].copy_from_slice(&count.to_le_bytes());
            let error = error_of(&bytes, &wide());
            assert!(matches!(error, DecodeError::Malformed { .. }), "{error}");
        }
    }
}

#[test]
fn the_token_never_shows_in_debug_output() {
    let hello =
        Request::Hello(Hello { version_min: 1, version_max: 1, token: "secret", client: "me" });
    assert!(!format!("{hello:?}").contains("secret"));
}

#[test]
fn a_deliver_header_is_the_front_of_a_deliver() {
    let bytes = encode_reply(&example(2));
    let header = deliver_header(7, 2, 2, 5, 2, 8);
    assert_eq!(bytes[..header.len()], header);
}

/// The annotated bytes of a block "```hex NAME" of the document.
fn documented(name: &str) -> Vec<u8> {
    let document = include_str!("../../docs/protocol.md");
    let (_, block) =
        document.split_once(&format!("```hex {name}\n")).expect("the block is in the document");
    let (block, _) = block.split_once("```").unwrap();
    block
        .lines()
        .flat_map(|line| line.split('|').next().unwrap().split_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

#[test]
fn the_document_is_right_to_the_byte() {
    let texts = [b"hello".to_vec(), Vec::new(), b"you".to_vec()];
    let (ends, payload) = columns(&texts, 0);
    let mut bytes = Vec::new();
    Request::Publish(Publish {
        request: 7,
        topic: TopicName::new("news").unwrap(),
        ack: true,
        records: Records::new(0, &ends, &payload).unwrap(),
    })
    .encode(&mut bytes);
    assert_eq!(bytes, documented("publish"));

    bytes.clear();
    Reply::Ack { request: 7, epoch: 0x0123_4567_89ab_cdef, first: 41, count: 3 }.encode(&mut bytes);
    assert_eq!(bytes, documented("ack"));

    let (ends, payload) = columns(&texts, 4096);
    bytes.clear();
    Reply::Deliver(Chunk {
        sub: 1,
        first: 41,
        time: 1_000_000_000 * 1_000_000_000,
        records: Records::new(4096, &ends, &payload).unwrap(),
    })
    .encode(&mut bytes);
    assert_eq!(bytes, documented("deliver"));
}

#[test]
fn the_document_has_every_code() {
    let document = include_str!("../../docs/protocol.md");
    for code in Code::ALL {
        let row = format!("| {} | {code:?} |", code.number());
        assert!(document.contains(&row), "no row {row}");
    }
}
