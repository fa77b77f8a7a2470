//! A rival that loses, repeats or swaps records, or that ends too soon, fails its run.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use psa_suite::cells::delivery;
use psa_suite::check::OnePublisher;
use psa_suite::rival::{Publish, Receive, Rival, Shape, Trouble};

const RECORDS: u64 = 1000;

/// A channel that does to record 500 what its parameter says.
struct Faulty<const FAULT: u8>;

const NOTHING: u8 = 0;
const LOSES: u8 = 1;
const REPEATS: u8 = 2;
const SWAPS: u8 = 3;
const ENDS: u8 = 4;

struct Sends<const FAULT: u8>(Option<SyncSender<u64>>);
struct Receives(Receiver<u64>);

impl<const FAULT: u8> Rival<u64> for Faulty<FAULT> {
    const NAME: &'static str = "faulty";
    type Publisher = Sends<FAULT>;
    type Subscriber = Receives;

    fn open(shape: &Shape) -> (Vec<Self::Publisher>, Vec<Self::Subscriber>) {
        let (sender, receiver) = sync_channel(shape.capacity());
        (vec![Sends(Some(sender))], vec![Receives(receiver)])
    }
}

impl<const FAULT: u8> Publish<u64> for Sends<FAULT> {
    fn publish(&mut self, payloads: impl Iterator<Item = u64>) {
        let mut payloads: Vec<u64> = payloads.collect();
        match FAULT {
            LOSES => drop(payloads.remove(500)),
            REPEATS => payloads[501] = payloads[500],
            SWAPS => payloads.swap(500, 501),
            ENDS => payloads.truncate(500),
            _ => {}
        }
        let sender = self.0.take().expect("published once");
        payloads.into_iter().for_each(|payload| sender.send(payload).expect("somebody receives"));
    }
}

impl Receive<u64> for Receives {
    fn receive(&mut self, take: &mut impl FnMut(&u64)) -> Result<(), Trouble> {
        take(&self.0.recv().map_err(|_| Trouble::Closed)?);
        Ok(())
    }
}

fn run<const FAULT: u8>() -> Result<(), Trouble> {
    let shape = Shape { publishers: 1, subscribers: 1, stored: 0, burst: 1 };
    delivery::threads::<Faulty<FAULT>, u64, OnePublisher>(&shape, RECORDS).map(drop)
}

#[test]
fn every_fault_fails_the_run() {
    assert_eq!(run::<NOTHING>(), Ok(()));
    let wrong = Err(Trouble::Wrong { received: RECORDS, expected: RECORDS });
    assert_eq!(run::<REPEATS>(), wrong);
    assert_eq!(run::<SWAPS>(), wrong);
    assert_eq!(run::<LOSES>(), Err(Trouble::Closed));
    assert_eq!(run::<ENDS>(), Err(Trouble::Closed));
}
