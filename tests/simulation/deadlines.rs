//! Peers that are gone without a word, and when that is noticed. Time is simulated: what is asked for here
//! depends on no machine.

use std::time::Duration;

use psa_simulated::client::{
    Client, Code, LeaseOptions, Overflow, Retention, Settings, SubscribeOptions,
};
use tokio::time::sleep;

use super::actors::{TOPIC, client, make_topic};
use super::faults::USUAL;
use super::world::Net;

const SECOND: Duration = Duration::from_secs(1);

fn keeping_all() -> Settings {
    let overflow = Some(Overflow::Evict);
    Settings { retention: Some(Retention::Everything), overflow, ..Settings::default() }
}

/// A client that says nothing on its own.
fn silent(name: &str) -> Client {
    let builder = Client::builder("server:9853").name(name).keepalive(3600 * SECOND);
    builder.build().expect("good settings")
}

#[test]
fn a_connection_whose_peer_is_gone_ends_after_its_idle_time() {
    let mut net = Net::new(super::seed("idle"), USUAL, |config| {
        config.limits.idle_timeout = 20 * SECOND;
    });
    net.sim.client("peer", async {
        let client = silent("peer");
        client.ping().await?;
        sleep(600 * SECOND).await;
        drop(client);
        Ok(())
    });
    net.until("the connection", |net| net.connections() == 1);
    net.pass(SECOND);
    net.sim.partition("peer", "server");
    let began = net.sim.elapsed();
    let took = net.until("the end of it", |net| net.connections() == 0) - began;
    // It is told so, although it cannot hear it, and has 2 seconds to leave.
    assert!(took > 18 * SECOND && took < 26 * SECOND, "{took:?}");
}

#[test]
fn a_subscriber_that_is_gone_is_cut_off_after_its_stall_time() {
    let mut net = Net::new(super::seed("stall"), USUAL, |config| {
        config.limits.stall_timeout = 20 * SECOND;
        config.limits.idle_timeout = Duration::ZERO;
    });
    net.sim.client("publisher", async {
        let client = client("publisher");
        make_topic(&client, keeping_all()).await;
        loop {
            client.publish(TOPIC, b"one more").await?;
            sleep(SECOND / 50).await;
        }
    });
    net.sim.client("peer", async {
        sleep(SECOND).await;
        let mut sub = silent("peer").subscribe(TOPIC, SubscribeOptions::earliest()).await?;
        while sub.next().await.transpose()?.is_some() {}
        Ok(())
    });
    let subscriptions =
        |net: &Net| net.server.borrow().as_ref().map_or(0, |server| server.subscriptions());
    net.until("the subscription", |net| subscriptions(net) == 1);
    net.pass(SECOND);
    net.sim.partition("peer", "server");
    let began = net.sim.elapsed();
    let took = net.until("the end of it", |net| subscriptions(net) == 0) - began;
    // What the simulated network takes for it before the server has to wait: 64 messages, a second or two.
    assert!(took > 20 * SECOND && took < 26 * SECOND, "{took:?}");
}

#[test]
fn a_subscriber_notices_that_its_server_is_gone_and_goes_on_when_it_is_back() {
    let mut net = Net::new(super::seed("keepalive"), USUAL, |_| ());
    let world = net.world.clone();
    net.sim.client("subscriber", async move {
        let client = client("subscriber");
        make_topic(&client, keeping_all()).await;
        let mut sub = client.subscribe(TOPIC, SubscribeOptions::earliest()).await?;
        world.borrow_mut().finished.insert(0);
        // Nothing is published: it has nothing to notice it by but its own questions.
        let waiting = async {
            let _ = sub.next().await;
        };
        tokio::select! {
            biased;
            () = waiting => panic!("nothing was published"),
            () = sleep(60 * SECOND) => {}
        }
        assert!(sub.reconnections() >= 1);
        // All the time since the partition ended it has been there.
        assert!(sub.is_connected());
        let published = client.publish(TOPIC, b"there you are").await?;
        let record = sub.next().await.transpose()?;
        assert!(format!("{record:?}").contains(&format!("offset: {}", published.first)));
        Ok(())
    });
    net.until("the subscription", |net| net.world.borrow().finished.contains(&0));
    net.sim.partition("subscriber", "server");
    net.pass(20 * SECOND);
    net.sim.repair("subscriber", "server");
    net.sim.run().expect("all went well");
}

#[test]
fn a_lease_waits_for_its_time_from_when_its_holder_was_given_up() {
    let mut net = Net::new(super::seed("lease"), USUAL, |config| {
        config.limits.stall_timeout = 10 * SECOND;
    });
    let world = net.world.clone();
    net.sim.host("holder", move || {
        let world = world.clone();
        async move {
            let client = silent("holder");
            make_topic(&client, keeping_all()).await;
            let lease = LeaseOptions::new("mine", 30 * SECOND);
            let options = SubscribeOptions::earliest().lease(lease);
            let mut sub = client.subscribe(TOPIC, options).await?;
            world.borrow_mut().finished.insert(0);
            while sub.next().await.transpose()?.is_some() {}
            Ok(())
        }
    });
    net.until("the lease", |net| net.world.borrow().finished.contains(&0));
    net.sim.partition("holder", "server");
    let world = net.world.clone();
    net.sim.client("other", async move {
        let client = client("other");
        let leases = async || client.describe(TOPIC).await.map(|details| details.leases);
        let lease = LeaseOptions::new("mine", SECOND);
        let options = SubscribeOptions::earliest().lease(lease);
        let refused = client.subscribe(TOPIC, options).await.err();
        assert_eq!(refused.and_then(|error| error.code()), Some(Code::LeaseHeld));
        while leases().await?.iter().any(|lease| lease.held) {
            // So that the server has something to say to the holder, and notices.
            client.publish(TOPIC, b"one more").await?;
        }
        world.borrow_mut().tell(format_args!("given up"));
        let began = tokio::time::Instant::now();
        while !leases().await?.is_empty() {
            sleep(SECOND / 10).await;
        }
        let took = began.elapsed();
        assert!(took > 29 * SECOND && took < 32 * SECOND, "{took:?}");
        Ok(())
    });
    net.sim.run().expect("all went well");
}
