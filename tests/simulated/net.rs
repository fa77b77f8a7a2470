//! The stand-in for `src/net`: turmoil's sockets.

use std::io;
use std::net::SocketAddr;

use tokio::sync::OnceCell;

pub(crate) use turmoil::net::TcpStream;

pub(crate) async fn connect(address: &str) -> io::Result<TcpStream> {
    TcpStream::connect(address).await
}

/// A listener that is opened when the first connection is asked for: turmoil's can only be opened by
/// somebody who waits.
pub(crate) struct TcpListener {
    address: SocketAddr,
    opened: OnceCell<turmoil::net::TcpListener>,
}

impl TcpListener {
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let open = || turmoil::net::TcpListener::bind(self.address);
        self.opened.get_or_try_init(open).await?.accept().await
    }
}

pub(crate) fn listen(
    address: SocketAddr,
    _: Option<u32>,
    _: Option<u32>,
) -> io::Result<TcpListener> {
    Ok(TcpListener { address, opened: OnceCell::new() })
}

/// The simulated network has no sockets of the system.
pub(crate) fn adopt(
    _: std::net::TcpListener,
    _: Option<u32>,
    _: Option<u32>,
) -> io::Result<TcpListener> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The kernel's watch over silent peers is not simulated.
pub(crate) fn prepare(_: &TcpStream) -> io::Result<()> {
    Ok(())
}

pub(crate) fn refuse(stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.try_write(bytes).map(drop)
}

/// What is on its way here is lost with its peer, or arrives.
pub(crate) fn close_abruptly(_: &TcpStream) {}
