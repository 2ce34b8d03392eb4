//! What connections come in by, and what they are made of: TCP, TCP with TLS, or a socket in the file system.

use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::server::TlsStream;

use super::address::Address;
use super::tls::Tls;

/// Where connections come in.
pub struct Listener {
    socket: Socket,
    tls: Option<Tls>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A machine; of an IPv6 address only the network, since a machine has all addresses of its network.
    Address(IpAddr),
    /// Whoever may open the socket in the file system.
    Local,
}

impl Peer {
    fn at(address: IpAddr) -> Peer {
        const NETWORK: u128 = !0 << 64;
        Peer::Address(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
            address => address,
        })
    }
}

impl Listener {
    /// Listens. A socket in the file system gets `mode`; TCP speaks TLS if there is `tls`.
    ///
    /// # Errors
    /// What the system says.
    pub async fn bind(address: &Address, mode: u32, tls: Option<&Tls>) -> io::Result<Listener> {
        match address {
            Address::Tcp(address) => {
                Ok(Listener { socket: Socket::Tcp(TcpListener::bind(address).await?), tls: tls.cloned() })
            }
            Address::Unix(path) => {
                remove_left_over(path).await?;
                let listener = UnixListener::bind(path)?;
                let file = SocketFile { path: path.clone(), identity: identity(path)? };
                std::fs::set_permissions(path, Permissions::from_mode(mode))?;
                Ok(Listener { socket: Socket::Unix(listener, file), tls: None })
            }
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<Address> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Socket::Unix(_, file) => Ok(Address::Unix(file.path.clone())),
        }
    }

    /// Whether connections have to speak TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The next connection. It has not said anything yet.
    pub async fn accept(&self) -> io::Result<(Accepted, Peer)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Answers are small and complete: waiting for more to send only makes them late.
                let _ = stream.set_nodelay(true);
                Ok((Accepted { stream: Stream::Tcp(stream), tls: self.tls.clone() }, Peer::at(address.ip())))
            }
            Socket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Accepted { stream: Stream::Unix(stream), tls: None }, Peer::Local))
            }
        }
    }
}

/// A socket that a server which was killed has left behind would keep the next one from listening. One that somebody
/// listens on is left alone, and so is what is no socket.
async fn remove_left_over(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && UnixStream::connect(path).await.is_err_and(refused) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// The file of a socket, which goes with it.
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have removed it, and put another one in its place.
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// What tells a file from another one of its name.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// A connection that may have to agree on TLS first.
pub struct Accepted {
    stream: Stream,
    tls: Option<Tls>,
}

impl Accepted {
    /// Agrees on TLS, if it has to.
    ///
    /// # Errors
    /// When the peer does not speak it, or has no certificate that is asked for.
    pub async fn agree(self) -> io::Result<Stream> {
        match (self.stream, self.tls) {
            (Stream::Tcp(stream), Some(tls)) => Ok(Stream::Tls(Box::new(tls.accept(stream).await?))),
            (stream, _) => Ok(stream),
        }
    }
}

/// A connection.
pub enum Stream {
    /// As it is.
    Tcp(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
    /// By a socket in the file system.
    Unix(UnixStream),
}

/// Does the same with each kind of stream.
macro_rules! each {
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
        each!(self, stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(context))
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
        each!(self, stream => Pin::new(stream).poll_write_vectored(context, slices))
    }
}
