//! What `{:?}` shows: where something stands, and never the records.

use std::sync::Arc;

use psa::*;

use crate::small;

/// A record that cannot be shown.
struct Secret;

#[test]
fn debug_forms_show_where_things_stand() {
    let log = small::<Secret>().build().unwrap();
    let mut cursor = log.subscribe(Start::Earliest).unwrap();
    for _ in 0..3 {
        assert!(log.blocking_append(Secret).is_ok());
    }
    assert_eq!(format!("{log:?}"), format!("Log {{ epoch: {}, offsets: 0..3 }}", log.epoch()));
    cursor.peek(Limit { records: 1, ..Limit::NONE }, |_| ()).unwrap();
    cursor.advance(1);
    assert_eq!(format!("{cursor:?}"), "Cursor { offset: 1, .. }");
    let batch = cursor.try_next(|batch| format!("{batch:?}")).unwrap().unwrap();
    assert_eq!(batch, "Batch { offsets: 1..3 }");
    let lease = log.lease("a", LeaseOptions::default()).unwrap();
    assert_eq!(lease.name(), "a");
    assert_eq!(format!("{lease:?}"), r#"Lease { name: "a", cursor: Cursor { offset: 3, .. } }"#);
}

#[test]
fn debug_forms_of_those_who_append() {
    let (mut publisher, log) = small::<Secret>().build_exclusive().unwrap();
    assert!(publisher.blocking_append(Secret).is_ok());
    assert_eq!(format!("{publisher:?}"), "Publisher { next_offset: 1 }");
    assert_eq!(publisher.epoch(), log.epoch());
    let log = Log::<[u8]>::builder().build().unwrap();
    assert_eq!(format!("{:?}", log.appender()), "Appender { .. }");
}

#[test]
fn a_refusal_shows_its_reason_and_not_the_value() {
    let log = small::<Secret>().build().unwrap();
    log.close();
    let refused = log.blocking_append(Secret).unwrap_err();
    assert_eq!(format!("{refused:?}"), "Refused { reason: Closed, .. }");
    assert_eq!(refused.to_string(), refused.reason.to_string());
    let source = std::error::Error::source(&refused).expect("there is a reason");
    assert_eq!(source.to_string(), AppendError::Closed.to_string());
    assert!(!refused.reason.is_full());
    assert!(!AppendError::TooLarge { size: 2, max: 1 }.is_full());
    assert!(AppendError::Full { limit: 1 }.is_full());
    assert!(AppendError::BudgetExhausted { limit: 1 }.is_full());
}

#[test]
fn debug_forms_of_settings() {
    struct Nobody;
    impl Observer for Nobody {
        fn on_event(&self, _: Event) {}
    }
    let budget = Arc::new(Budget::new(1 << 20));
    assert_eq!(format!("{budget:?}"), "Budget { limit: 1048576, used: 0 }");
    // A builder can be cloned and shown whatever its log holds.
    let builder = small::<Secret>().retention(Retention::Records(7));
    let settings = format!("{:?}", builder.clone());
    assert!(settings.contains("segment_records: Some(4)"), "{settings}");
    assert!(settings.contains("retention: Records(7)"), "{settings}");
    assert!(settings.contains("not observed"), "{settings}");
    let settings = format!("{:?}", builder.observer(Arc::new(Nobody)));
    assert!(settings.contains("observed") && !settings.contains("not observed"), "{settings}");
}
