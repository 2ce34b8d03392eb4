//! Listeners and the streams of their connections: TCP, TCP with TLS, and Unix sockets.

use std::fs::Permissions;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::server::TlsStream;

use super::address::Address;
use super::tls::Tls;

/// A bound listener.
pub struct Listener {
    socket: Socket,
    tls: Option<Tls>,
}

enum Socket {
    /// One, or for `localhost` one for each family of addresses.
    Tcp(Vec<TcpListener>, Address),
    Unix(UnixListener, SocketFile),
}

/// The peer of a connection, as the rate limit distinguishes peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// An IPv4 address, or the /64 network of an IPv6 address, because a machine has all addresses of its network. All
    /// loopback addresses are 127.0.0.1, because every program of this machine has all of them.
    Address(IpAddr),
    /// Any process that connects over a Unix socket.
    Local,
}

impl Peer {
    fn from_ip(address: IpAddr) -> Peer {
        const NETWORK: u128 = !0 << 64;
        Peer::Address(match address.to_canonical() {
            address if address.is_loopback() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
            address => address,
        })
    }
}

impl Listener {
    /// Binds `address`. A Unix socket gets the permissions `mode`; a TCP listener uses `tls` if it is `Some`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: &Address, mode: u32, tls: Option<&Tls>) -> io::Result<Listener> {
        match address {
            Address::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                let bound = Address::Tcp(listener.local_addr()?);
                Ok(Listener { socket: Socket::Tcp(vec![listener], bound), tls: tls.cloned() })
            }
            Address::Localhost(port) => {
                let listeners = bind_localhost(*port).await?;
                let bound = listeners[0].local_addr()?;
                Ok(Listener { socket: Socket::Tcp(listeners, Address::Localhost(bound.port())), tls: tls.cloned() })
            }
            Address::Unix(path) => {
                remove_stale_socket(path).await?;
                let listener = UnixListener::bind(path)?;
                let file = SocketFile { path: path.clone(), identity: identity(path)? };
                std::fs::set_permissions(path, Permissions::from_mode(mode))?;
                Ok(Listener { socket: Socket::Unix(listener, file), tls: None })
            }
        }
    }

    /// The bound address.
    pub fn address(&self) -> Address {
        match &self.socket {
            Socket::Tcp(_, address) => address.clone(),
            Socket::Unix(_, file) => Address::Unix(file.path.clone()),
        }
    }

    /// Whether only programs of this machine can connect over the network: the address is one of the loopback interface.
    pub fn is_loopback(&self) -> bool {
        match &self.socket {
            Socket::Tcp(_, address) => address.tcp().is_some_and(|address| address.ip().to_canonical().is_loopback()),
            Socket::Unix(..) => false,
        }
    }

    /// Whether connections use TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Accepts the next connection, before any TLS handshake.
    ///
    /// # Errors
    /// When the system cannot accept a connection.
    pub async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        match &self.socket {
            Socket::Tcp(listeners, _) => {
                let (stream, address) = accept_any(listeners).await?;
                // Responses are small and complete: waiting for more data only delays them.
                let _ = stream.set_nodelay(true);
                Ok((Accepted { stream: Stream::Tcp(stream), tls: self.tls.clone() }, Peer::from_ip(address.ip())))
            }
            Socket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Accepted { stream: Stream::Unix(stream), tls: None }, Peer::Local))
            }
        }
    }
}

/// Binds a port of the loopback interface, of IPv4 and of IPv6 if the machine has it. If the system chooses the port, both
/// have the same.
async fn bind_localhost(port: u16) -> io::Result<Vec<TcpListener>> {
    let first = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    match TcpListener::bind((Ipv6Addr::LOCALHOST, first.local_addr()?.port())).await {
        Ok(second) => Ok(vec![first, second]),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
        // A machine without IPv6: its error differs with the reason.
        Err(_) => Ok(vec![first]),
    }
}

/// Accepts the next connection of any of these listeners.
async fn accept_any(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|context| {
        let mut accepted = listeners.iter().map(|listener| listener.poll_accept(context));
        accepted.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

/// Removes the socket file that a killed server left, because it would prevent binding. A socket that a process listens
/// on and a file that is not a socket are left alone.
async fn remove_stale_socket(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && UnixStream::connect(path).await.is_err_and(refused) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// The file of a bound Unix socket. It is removed when this is dropped.
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process may have replaced the file.
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Device and inode, which distinguish a file from another one at the same path.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// An accepted connection, before the TLS handshake that it may need.
pub struct Accepted {
    stream: Stream,
    tls: Option<Tls>,
}

impl Accepted {
    /// Does the TLS handshake, if the listener uses TLS.
    ///
    /// # Errors
    /// When the handshake fails, for example because the peer does not use TLS or lacks a required client certificate.
    pub async fn handshake(self) -> io::Result<Stream> {
        match (self.stream, self.tls) {
            (Stream::Tcp(stream), Some(tls)) => Ok(Stream::Tls(Box::new(tls.accept(stream).await?))),
            (stream, _) => Ok(stream),
        }
    }
}

/// The stream of a connection.
pub enum Stream {
    /// TCP without TLS.
    Tcp(TcpStream),
    /// TCP with TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// A Unix socket.
    Unix(UnixStream),
}

/// Evaluates an expression with the stream of each variant.
macro_rules! with_stream {
    ($self:ident, $stream:ident => $work:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $work,
            Stream::Tls($stream) => $work,
            Stream::Unix($stream) => $work,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        with_stream!(self, stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        with_stream!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_stream!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_stream!(self, stream => Pin::new(stream).poll_shutdown(context))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with_stream!(self, stream => Pin::new(stream).poll_write_vectored(context, slices))
    }
}
