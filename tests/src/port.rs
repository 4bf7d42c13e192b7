//! Loopback ports whose number must be known before anyone listens there, or on which nobody ever does. A number that is
//! picked and let go of can be anybody's a moment later; one that is held cannot.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::net::TcpSocket;

/// A loopback port of the kernel's choosing, held until dropped: whoever connects is refused, and the kernel gives the
/// number to nobody. A program that is told the number listens on it all the same, and again after a restart: its
/// listener allows the address to be reused (`SO_REUSEADDR`), as those of Rust, Go and Python do.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _held: TcpSocket,
}

impl Port {
    /// Holds one that was nobody's.
    ///
    /// # Errors
    /// When every port is taken.
    pub fn hold() -> io::Result<Self> {
        let held = TcpSocket::new_v4()?;
        held.set_reuseaddr(true)?;
        held.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self { address: held.local_addr()?, _held: held })
    }

    /// `127.0.0.1` with its number.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.address.port()
    }

    /// `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn nobody_answers_on_a_held_port_until_someone_listens_who_was_told_its_number() {
        let port = Port::hold().unwrap();
        let refused = || TcpStream::connect(port.address()).unwrap_err().kind();
        assert_eq!(refused(), io::ErrorKind::ConnectionRefused);
        for _ in 0..2 {
            let listener = TcpListener::bind(port.address()).unwrap();
            let client = TcpStream::connect(port.address()).unwrap();
            drop((listener.accept().unwrap(), client, listener));
            assert_eq!(refused(), io::ErrorKind::ConnectionRefused);
        }
    }

    #[test]
    fn whoever_is_not_told_its_number_cannot_have_it() {
        let port = Port::hold().unwrap();
        // One that does not ask for the address to be reused, as an outgoing connection does not.
        let stranger = TcpSocket::new_v4().unwrap();
        assert_eq!(stranger.bind(port.address()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        for _ in 0..200 {
            assert_ne!(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(), port.address());
        }
    }
}
