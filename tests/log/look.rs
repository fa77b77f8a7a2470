//! What one look shows.

use psa::*;

use crate::small;

#[test]
fn looks_show_as_much_as_their_limit_allows() {
    let log = Log::<[u8]>::builder().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for length in [10, 10, 10, 100, 0, 0, 5] {
        log.append(&vec![1; length]).unwrap();
    }
    let mut look = |records, bytes| {
        let shown = cursor.peek(Limit { records, bytes }, |batch| batch.len()).unwrap().unwrap();
        cursor.advance(shown);
        shown
    };
    assert_eq!(look(10, 20), 2);
    assert_eq!(look(1, 100), 1);
    assert_eq!(look(10, 50), 1, "one that is too large comes alone");
    assert_eq!(look(10, 50), 3);
}

#[test]
#[should_panic(expected = "advance by 2 of 1 shown")]
fn advancing_further_than_was_shown_panics() {
    let log = small::<u64>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    log.append_batch([1, 2]).unwrap();
    cursor.peek(Limit { records: 1, ..Limit::NONE }, |_| ()).unwrap();
    cursor.advance(2);
}
