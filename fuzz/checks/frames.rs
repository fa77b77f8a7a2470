//! What has to hold for the frame decoder, whatever bytes it is given.

use psa::protocol::{
    DecodeError, DecodeLimits, Decoded, HEADER, Reply, decode_reply, decode_request,
};

/// A limit that lets everything through that can be in an input, and a tight one.
fn limits() -> [DecodeLimits; 2] {
    [
        DecodeLimits { max_frame: 1 << 20, max_record: u32::MAX },
        DecodeLimits { max_frame: 300, max_record: 10 },
    ]
}

/// No panic, no allocation by an unchecked number (the fuzzer bounds memory), one form for each
/// frame, and the same answer however much of the frame is there.
pub(crate) fn check(data: &[u8]) {
    for limits in limits() {
        let request = decode_request(data, &limits);
        if let Ok(Decoded::Frame { value, consumed }) = &request {
            let mut again = Vec::new();
            value.encode(&mut again);
            assert_eq!(again, data[..*consumed], "a request has two forms");
        }
        check_size(data, outcome(&request), |bytes| outcome(&decode_request(bytes, &limits)));
        let reply = decode_reply(data, &limits);
        if let Ok(Decoded::Frame { value, consumed }) = &reply {
            let mut again = Vec::new();
            value.encode(&mut again);
            assert_eq!(again, data[..*consumed], "a reply has two forms");
            if let Reply::Deliver(chunk) = value {
                let records = chunk.iter();
                assert!(records.len() <= *consumed);
                assert!(records.map(|(_, record)| record.len()).sum::<usize>() <= *consumed);
            }
        }
        check_size(data, outcome(&reply), |bytes| outcome(&decode_reply(bytes, &limits)));
    }
}

/// What a decoder said about its input's size.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Frame(usize),
    Missing(usize),
    Wrong,
}

fn outcome<T>(decoded: &Result<Decoded<T>, DecodeError>) -> Outcome {
    match decoded {
        Ok(Decoded::Frame { consumed, .. }) => Outcome::Frame(*consumed),
        Ok(Decoded::NeedMore { at_least }) => Outcome::Missing(*at_least),
        Err(_) => Outcome::Wrong,
    }
}

/// A frame is the same frame alone, and not there when its last byte is missing; who asks for more
/// asks for more than there is.
fn check_size(data: &[u8], whole: Outcome, decode: impl Fn(&[u8]) -> Outcome) {
    match whole {
        Outcome::Frame(consumed) => {
            assert!((HEADER..=data.len()).contains(&consumed));
            assert_eq!(decode(&data[..consumed]), whole, "what follows a frame changes it");
            let cut = decode(&data[..consumed - 1]);
            let wanted = if consumed == HEADER { HEADER } else { consumed };
            assert_eq!(cut, Outcome::Missing(wanted), "a frame without its last byte");
        }
        Outcome::Missing(at_least) => assert!(at_least > data.len(), "asks for what is there"),
        Outcome::Wrong => {}
    }
}
