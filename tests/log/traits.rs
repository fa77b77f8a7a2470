//! What handles can be sent, shared, and used after a panic: the compiler works it out from private parts, so it is
//! written down here.

use std::panic::{RefUnwindSafe, UnwindSafe};

use psa::*;
use static_assertions::{assert_impl_all, assert_not_impl_any};

assert_impl_all!(Log<u64>: Send, Sync, Clone, UnwindSafe, RefUnwindSafe);
assert_impl_all!(Log<[u8], Exclusive>: Send, Sync, Clone, UnwindSafe, RefUnwindSafe);
assert_impl_all!(WeakLog<u64>: Send, Sync, Clone);
assert_impl_all!(Closed<u64>: Send, Sync, Unpin, UnwindSafe, RefUnwindSafe);
assert_impl_all!(Cursor<u64>: Send, Sync, Clone, Unpin, UnwindSafe, RefUnwindSafe);
assert_impl_all!(Lease<u64>: Send, Sync, Unpin, UnwindSafe, RefUnwindSafe);
assert_impl_all!(Publisher<u64>: Send, Sync, Unpin, UnwindSafe, RefUnwindSafe);
assert_impl_all!(Appender: Send, Sync, Unpin, UnwindSafe, RefUnwindSafe);
assert_impl_all!(Records<u64>: Send, Sync, Unpin);
assert_impl_all!(BlockingIter<'static, u64>: Send, Sync);
assert_impl_all!(Batch<'static, [u8]>: Send, Sync, Clone, Unpin, UnwindSafe, RefUnwindSafe);
assert_impl_all!(Batch<'static, [u8]>: AsRef<[u8]>);
assert_impl_all!(Budget: Send, Sync, UnwindSafe, RefUnwindSafe);
// There is one.
assert_not_impl_any!(Publisher<u64>: Clone);
assert_not_impl_any!(Lease<u64>: Clone);

/// Futures that a task may keep across an `.await`, with what they lend.
#[test]
fn futures_can_be_sent() {
    fn is_send<T: Send>(future: T) {
        drop(future);
    }
    async fn reads(mut cursor: Cursor<[u8]>) -> usize {
        let batch = cursor.next_batch(Limit::NONE).await.unwrap();
        std::future::ready(()).await;
        let held = batch.hold();
        let bytes = batch.payload().len();
        cursor.recv().await.unwrap();
        std::future::ready(()).await;
        bytes + held.payload().len()
    }
    let log = Log::<[u8]>::new();
    is_send(log.append("x"));
    is_send(log.append_batch(&["x"]));
    is_send(reads(log.subscribe(Start::Next).unwrap()));
}
