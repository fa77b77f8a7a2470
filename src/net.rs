//! The one way by which server and client reach the network: connecting, listening, and what is asked
//! of a socket beside reading and writing.
//!
//! They name no socket of `tokio` themselves. A crate can therefore include their very source with a `net` of
//! its own, whose network is simulated (`tests/simulated` does so), and what runs there is the code that
//! ships. What a stand-in has to offer is exactly what this module exports; nothing here is public.

pub(crate) use tokio::net::TcpStream;

#[cfg(any(feature = "server", feature = "http"))]
pub(crate) use listening::*;

/// Connects to `HOST:PORT`.
#[cfg(feature = "client")]
pub(crate) async fn connect(address: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Requests are written whole; waiting to join small ones would only delay them.
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(any(feature = "server", feature = "http"))]
mod listening {
    use std::{io, mem::MaybeUninit, net::Shutdown, net::SocketAddr, time::Duration};

    use socket2::{SockRef, TcpKeepalive};
    use tokio::net::{TcpSocket, TcpStream};

    pub(crate) use tokio::net::TcpListener;

    /// Connections that may wait to be accepted. The system may allow fewer.
    const BACKLOG: u32 = 4096;
    /// A silent peer is asked whether it lives after this time, ...
    const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
    /// ... then this often, ...
    const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
    /// ... and is given up after so many questions without an answer.
    const KEEPALIVE_TRIES: u32 = 4;

    /// Opens a listening socket; the sizes are those of the kernel's buffers, in bytes.
    pub(crate) fn listen(
        address: SocketAddr,
        send_buffer: Option<u32>,
        receive_buffer: Option<u32>,
    ) -> io::Result<TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Connections that linger from the last run must not keep this one from starting.
        socket.set_reuseaddr(true)?;
        size_buffers(&SockRef::from(&socket), send_buffer, receive_buffer)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    }

    /// Takes over a socket that listens already.
    pub(crate) fn adopt(
        listener: std::net::TcpListener,
        send_buffer: Option<u32>,
        receive_buffer: Option<u32>,
    ) -> io::Result<TcpListener> {
        listener.set_nonblocking(true)?;
        size_buffers(&SockRef::from(&listener), send_buffer, receive_buffer)?;
        TcpListener::from_std(listener)
    }

    /// Accepted sockets inherit these, and must: the window scale is agreed on while connecting.
    fn size_buffers(
        socket: &SockRef<'_>,
        send_buffer: Option<u32>,
        receive_buffer: Option<u32>,
    ) -> io::Result<()> {
        if let Some(bytes) = send_buffer {
            socket.set_send_buffer_size(bytes as usize)?;
        }
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes as usize)?;
        }
        Ok(())
    }

    /// Sets up a connection that was accepted.
    pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
        // Frames are written whole: holding the last piece back for company only delays it.
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_EVERY)
            .with_retries(KEEPALIVE_TRIES);
        SockRef::from(stream).set_tcp_keepalive(&keepalive)
    }

    /// Bounds what the kernel takes for a peer beyond what may be on its way to it: a write waits while so
    /// many bytes cannot be sent yet. What is on its way stays unbounded, so that distance costs no speed.
    /// Does nothing where the system has no such bound.
    #[cfg(feature = "http")]
    pub(crate) fn limit_unsent(stream: &TcpStream, bytes: u32) -> io::Result<()> {
        #[cfg(any(target_os = "android", target_os = "linux"))]
        return SockRef::from(stream).set_tcp_notsent_lowat(bytes);
        #[cfg(not(any(target_os = "android", target_os = "linux")))]
        Ok(drop((stream, bytes)))
    }

    /// Says something on a connection that was just accepted, as well as one write can, and closes it.
    pub(crate) fn refuse(stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        // Readiness has not been reported yet on a socket this young: ask the kernel itself.
        let socket = SockRef::from(stream);
        let sent = socket.send(bytes);
        // A HELLO that is in the buffer when the socket closes would turn the close into a reset, which
        // may overtake what was said. Take out what is there; what comes later meets a closed socket.
        let _ = socket.shutdown(Shutdown::Write);
        let mut scrap = [const { MaybeUninit::uninit() }; 2048];
        let _ = socket.recv(&mut scrap);
        sent.map(drop)
    }

    /// Makes the end of a connection abrupt: what the kernel holds for a peer that does not read goes at
    /// once. If that fails the socket is closed the ordinary way.
    pub(crate) fn close_abruptly(stream: &TcpStream) {
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
}
