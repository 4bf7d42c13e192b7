//! Sockets: a unix socket that outlives a killed predecessor, or a TCP port.

use std::{io, os::unix::fs::PermissionsExt as _, path::Path, path::PathBuf};

use anyhow::Context as _;
use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::config::Listen;

/// Owner and group may connect: CA in the same pod, perhaps under another user of the pod's group.
const SOCKET_MODE: u32 = 0o660;

/// Something that listens.
pub(crate) enum Bound {
    /// A unix socket, removed at the end.
    Unix(UnixListener, SocketFile),
    /// A TCP port.
    Tcp(TcpListener),
}

/// Binds.
///
/// # Errors
/// An address in use, or one we may not have; says which and what to do.
pub(crate) async fn bind(listen: &Listen) -> anyhow::Result<Bound> {
    match listen {
        Listen::Unix(path) => {
            let bound = bind_unix(path).await;
            bound.with_context(|| {
                format!("cannot listen on unix://{}; is its folder there and writable?", path.display())
            })
        }
        Listen::Tcp(address) => {
            let bound = TcpListener::bind(address).await;
            bound.map(Bound::Tcp).with_context(|| format!("cannot listen on {address}; is the port in use?"))
        }
    }
}

/// A socket file is left behind by a killed process and then refuses the next one; one that someone answers on is not
/// ours to take.
async fn bind_unix(path: &Path) -> io::Result<Bound> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
    }
    match std::fs::symlink_metadata(path) {
        Ok(about) if std::os::unix::fs::FileTypeExt::is_socket(&about.file_type()) => std::fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is there")),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(Bound::Unix(listener, SocketFile(path.to_owned())))
}

/// Removes the socket at the end, so that the next connect fails at once instead of hanging.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
