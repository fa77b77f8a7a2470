//! The only access of server and client to the network: connecting, listening, and the operations on sockets
//! other than reading and writing.
//!
//! Server and client do not name tokio's sockets themselves. Another crate can therefore include their unchanged
//! source with its own `net`, whose network is simulated (`tests/simulated` does this), and run the code that
//! ships. A replacement must provide exactly what this module exports. Nothing here is public.

pub(crate) use tokio::net::TcpStream;

#[cfg(any(feature = "server", feature = "http"))]
pub(crate) use listening::*;

/// Connects to `HOST:PORT`.
#[cfg(feature = "client")]
pub(crate) async fn connect(address: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Requests are written whole, so waiting to merge small ones would only delay them.
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(any(feature = "server", feature = "http"))]
mod listening {
    use std::io;
    use std::mem::MaybeUninit;
    use std::net::{Shutdown, SocketAddr};
    use std::time::Duration;

    use socket2::{SockRef, TcpKeepalive};
    use tokio::net::{TcpSocket, TcpStream};

    pub(crate) use tokio::net::TcpListener;

    /// How many connections may wait to be accepted. The system may allow fewer.
    const BACKLOG: u32 = 4096;
    /// A silent peer gets the first keepalive probe after this time, ...
    const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
    /// ... then one at this interval, ...
    const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
    /// ... and counts as dead after this many unanswered probes.
    const KEEPALIVE_TRIES: u32 = 4;

    /// Opens a listening socket. The buffer sizes are those of the kernel's socket buffers, in bytes.
    pub(crate) fn listen(
        address: SocketAddr,
        send_buffer: Option<u32>,
        receive_buffer: Option<u32>,
    ) -> io::Result<TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Connections that linger from the last run must not prevent this one from starting. On Windows they do not, and
        // this option would let two servers share a port.
        #[cfg(not(windows))]
        socket.set_reuseaddr(true)?;
        size_buffers(&SockRef::from(&socket), send_buffer, receive_buffer)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    }

    /// Adopts a socket that is already listening.
    pub(crate) fn adopt(
        listener: std::net::TcpListener,
        send_buffer: Option<u32>,
        receive_buffer: Option<u32>,
    ) -> io::Result<TcpListener> {
        listener.set_nonblocking(true)?;
        size_buffers(&SockRef::from(&listener), send_buffer, receive_buffer)?;
        TcpListener::from_std(listener)
    }

    /// Sets the buffer sizes of a listening socket. Accepted sockets inherit them. They must be set here, because the
    /// window scale is negotiated while connecting.
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

    /// Sets the options of an accepted connection.
    pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
        // Frames are written whole, so holding back the last segment would only delay it.
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_EVERY)
            .with_retries(KEEPALIVE_TRIES);
        SockRef::from(stream).set_tcp_keepalive(&keepalive)
    }

    /// Limits how many unsent bytes the kernel buffers for a peer: a write waits while this many bytes cannot be sent
    /// yet. Bytes in flight are not limited, so latency to the peer does not cost throughput. Does nothing on systems
    /// without such a limit.
    #[cfg(feature = "http")]
    pub(crate) fn limit_unsent(stream: &TcpStream, bytes: u32) -> io::Result<()> {
        #[cfg(any(target_os = "android", target_os = "linux"))]
        SockRef::from(stream).set_tcp_notsent_lowat(bytes)?;
        let _ = (stream, bytes);
        Ok(())
    }

    /// Sends `bytes` on a connection that was just accepted, in a single write, and closes it for writing.
    pub(crate) fn refuse(stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        // The runtime has not reported readiness for a socket this new, so send through the kernel directly.
        let socket = SockRef::from(stream);
        let sent = socket.send(bytes);
        // A HELLO in the receive buffer when the socket closes would turn the close into a reset, which may overtake
        // the bytes sent. Read out what is there now; anything that arrives later meets a closed socket.
        let _ = socket.shutdown(Shutdown::Write);
        let mut scrap = [const { MaybeUninit::uninit() }; 2048];
        let _ = socket.recv(&mut scrap);
        sent.map(drop)
    }

    /// Makes closing the connection abrupt: the kernel immediately discards what it holds for a peer that does not
    /// read. If setting this fails, the socket is closed normally.
    pub(crate) fn close_abruptly(stream: &TcpStream) {
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
}
