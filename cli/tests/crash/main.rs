//! One folder, many servers: each is killed with SIGKILL at a random moment under load, and the next one goes on with the
//! folder.
//!
//! Publishers, subscribers and leases, over TCP and HTTP, go on through all of these lives. What has to hold:
//!
//! - every acknowledged record is there once, at the offset that was acknowledged, in the same epoch;
//! - appends are linearizable: one that is sent after another was acknowledged, or seen by anybody, comes after it, and so does
//!   one whose outcome is unknown, if it is there; whoever asks for the end is told one that is not before it;
//! - an offset that anybody has seen has the same record for everybody, in every life;
//! - of what one connection sent, a beginning is there, in order, and batches whole; so a record whose outcome is unknown is
//!   there at most once, and twice only if its publisher sent it again;
//! - a subscriber that resumes gets each record once; where a topic gave up files, the gap is exact;
//! - a lease goes on at most at what was committed, and at least at the last commit that was confirmed before a publish that
//!   was acknowledged (`TopicLease::commit`: a commit is written with the topic's next group);
//! - a topic that was closed or deleted, and whose client was told so, stays so.
//!
//! `PSA_TEST_SEED` is the seed of the first folder, `PSA_TEST_ROUNDS` how many folders there are, and `PSA_TEST_LIVES` how
//! many servers each of them has. The choices come from the seed. What happens does not entirely: the threads are real.
#![cfg(unix)]

#[path = "../e2e/harness.rs"]
mod harness;

mod lives;
mod publishers;
mod side;
mod subscribers;
mod told;
mod web;
mod world;
