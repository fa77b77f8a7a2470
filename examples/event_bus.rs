//! An event bus in an axum server. `POST /events` publishes an event, and `GET /events` follows the bus as an event
//! stream (Server-Sent Events); there may be thousands of streams. A new stream begins with the last hundred events. A
//! client that reconnects names the last event that it received (`Last-Event-ID`, which browsers send automatically)
//! and continues with the next one. If a stream misses events, it receives an event `gap` with the exact range instead.
//! The program prints its address and example commands, and ends with Ctrl-C.
//!
//! ```sh
//! cargo run --release --example event_bus
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::fmt::Display;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use futures_util::stream::{self, Stream, StreamExt};
use psa::{AppendError, Cursor, Lagged, Log, Overflow, Position, Retention, Start, SubscribeError};
use tokio::net::TcpSocket;

type Bus = Log<[u8]>;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // At the memory limit, the slowest streams lose events and learn which ones. Nothing else waits for them.
    let bus = Bus::builder()
        .segment_bytes(64 << 10)
        .retention(Retention::Records(100))
        .memory_limit(16 << 20)
        .overflow(Overflow::Evict)
        .build()?;
    let app = axum::Router::new()
        .route("/", get(figures))
        .route("/events", get(follow).post(publish))
        .layer(DefaultBodyLimit::max(64 << 10))
        .with_state(bus.clone());

    // `TcpListener::bind` has a short queue, which overflows when hundreds of clients reconnect at the same moment.
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse()?)?;
    let listener = socket.listen(4_096)?;
    let address = listener.local_addr()?;
    println!("listening on {address}; in other terminals:");
    println!("  curl -N http://{address}/events");
    println!("  curl -d hello http://{address}/events");
    println!("  curl http://{address}/");
    let stop = {
        let bus = bus.clone();
        async move {
            let _ = tokio::signal::ctrl_c().await;
            // Every stream reads to the end of the log, and ends there.
            bus.close();
        }
    };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    println!("stopped after {} events", bus.next_offset());
    Ok(())
}

async fn figures(State(bus): State<Bus>) -> String {
    let stats = bus.stats();
    let kib = stats.memory() >> 10;
    format!("{} events, {} streams, {kib} KiB\n", stats.next_offset, stats.cursors)
}

/// Responds with the ID of the new event.
async fn publish(State(bus): State<Bus>, event: String) -> Result<String, (StatusCode, String)> {
    match bus.append(event).await {
        Ok(offset) => Ok(format!("{}\n", id(bus.epoch(), offset))),
        Err(error @ AppendError::TooLarge { .. }) => {
            Err((StatusCode::PAYLOAD_TOO_LARGE, format!("{error}\n")))
        }
        Err(error) => Err((StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))),
    }
}

async fn follow(
    State(bus): State<Bus>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, (StatusCode, String)> {
    let last = headers.get("last-event-id").map(|id| String::from_utf8_lossy(id.as_bytes()));
    let last = last.map(|id| id.parse()).transpose().map_err(bad_request)?;
    let (cursor, restart) = subscribe(&bus, last).map_err(bad_request)?;
    let epoch = cursor.epoch();
    let events = cursor.into_stream().map(move |next| match next {
        Ok((offset, event)) => {
            Event::default().id(id(epoch, offset)).data(String::from_utf8_lossy(&event))
        }
        Err(lagged) => gap(epoch, lagged),
    });
    Ok(Sse::new(stream::iter(restart).chain(events).map(Ok)).keep_alive(KeepAlive::default()))
}

fn bad_request(why: impl Display) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, format!("{why}\n"))
}

/// A cursor for a stream whose last event was `last`, and the event to send first, if any.
fn subscribe(
    bus: &Bus,
    last: Option<Position>,
) -> Result<(Cursor<[u8]>, Option<Event>), SubscribeError> {
    let Some(last) = last else {
        return Ok((bus.subscribe(Start::Last(100))?, None));
    };
    // If it has been away for too long, the cursor reports what it missed.
    match bus.subscribe(Start::ResumeOrLag(last)) {
        // The server was restarted, so it is unknown how many events followed the last one.
        Err(SubscribeError::WrongEpoch { .. }) => {
            let restart = Event::default().event("restart").data(last.to_string());
            Ok((bus.subscribe(Start::Earliest)?, Some(restart)))
        }
        other => Ok((other?, None)),
    }
}

/// Its ID is that of the last missed event, so a client that reconnects after it does not receive the gap again.
fn gap(epoch: u64, Lagged { first_missed: first, missed }: Lagged) -> Event {
    let data = format!(r#"{{"first_missed":{first},"missed":{missed}}}"#);
    Event::default().event("gap").id(id(epoch, first + missed - 1)).data(data)
}

fn id(epoch: u64, offset: u64) -> String {
    Position { epoch, next: offset + 1 }.to_string()
}
