//! The exact question to `NETLINK_SOCK_DIAG`: one socket in, one answer out.
//!
//! The messages are those of `linux/netlink.h` and `linux/inet_diag.h`, in the
//! machine's own byte order but for ports and addresses.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use super::{Listed, OwnerError, SocketOwner};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
const TCP_ESTABLISHED: u8 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const HEADER: usize = 16;
/// `inet_diag_req_v2` with its `inet_diag_sockid`.
const REQUEST: usize = HEADER + 8 + 48;

struct Diag {
    socket: OwnedFd,
    sequence: u32,
}

thread_local! {
    /// One socket per thread: making one costs more than asking.
    static DIAG: RefCell<Option<Diag>> = const { RefCell::new(None) };
}

/// Asks for the socket that is bound to `peer` and connected to `local`.
pub(super) fn ask(peer: SocketAddr, local: SocketAddr) -> Result<SocketOwner, OwnerError> {
    DIAG.with_borrow_mut(|kept| {
        let diag = match kept {
            Some(diag) => diag,
            None => kept.insert(Diag::open().map_err(OwnerError::Io)?),
        };
        match diag.find(peer, local) {
            Ok(listed) => listed.and_then(|listed| listed.owner_of(peer, local)).ok_or(OwnerError::NotFound),
            Err(error) => {
                // Whatever is left in it must not answer the next question.
                *kept = None;
                Err(OwnerError::Io(error))
            }
        }
    })
}

impl Diag {
    fn open() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?;
        // The kernel answers within the call; this is for a kernel that does not.
        set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(1)))?;
        Ok(Self { socket, sequence: 0 })
    }

    fn find(&mut self, src: SocketAddr, dst: SocketAddr) -> io::Result<Option<Listed>> {
        self.sequence = self.sequence.wrapping_add(1);
        send(&self.socket, &request(src, dst, self.sequence), SendFlags::empty())?;
        let mut answer = [0; 1024];
        loop {
            let (_, len) = match recv(&self.socket, &mut answer, RecvFlags::empty()) {
                Err(Errno::INTR) => continue,
                received => received?,
            };
            let answer = &answer[..len.min(answer.len())];
            if u32_at(answer, 8) == Some(self.sequence) {
                return parse(answer);
            }
        }
    }
}

fn request(src: SocketAddr, dst: SocketAddr, sequence: u32) -> [u8; REQUEST] {
    let mut out = [0; REQUEST];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        out[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    // nlmsghdr
    put(&(REQUEST as u32).to_ne_bytes());
    put(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    put(&NLM_F_REQUEST.to_ne_bytes());
    put(&sequence.to_ne_bytes());
    put(&0_u32.to_ne_bytes());
    // inet_diag_req_v2
    put(&[if src.is_ipv4() { AF_INET } else { AF_INET6 }, IPPROTO_TCP, 0, 0]);
    put(&(1_u32 << TCP_ESTABLISHED).to_ne_bytes());
    // inet_diag_sockid
    put(&src.port().to_be_bytes());
    put(&dst.port().to_be_bytes());
    put(&address(src.ip()));
    put(&address(dst.ip()));
    put(&0_u32.to_ne_bytes());
    put(&[0xff; 8]); // no cookie
    out
}

fn address(ip: IpAddr) -> [u8; 16] {
    let mut out = [0; 16];
    match ip {
        IpAddr::V4(v4) => out[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => out = v6.octets(),
    }
    out
}

fn parse(answer: &[u8]) -> io::Result<Option<Listed>> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "a short netlink answer");
    let kind = u16_at(answer, 4).ok_or_else(short)?;
    if kind == NLMSG_ERROR {
        let error = u32_at(answer, HEADER).ok_or_else(short)?.cast_signed().wrapping_neg();
        return match Errno::from_raw_os_error(error) {
            Errno::NOENT => Ok(None),
            error => Err(error.into()),
        };
    }
    if kind != SOCK_DIAG_BY_FAMILY {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a foreign netlink answer"));
    }
    listed(answer.get(HEADER..).ok_or_else(short)?).map(Some).ok_or_else(short)
}

/// Reads an `inet_diag_msg`.
fn listed(message: &[u8]) -> Option<Listed> {
    let v4 = *message.first()? == AF_INET;
    let ip = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 16] = message.get(at..at + 16)?.try_into().ok()?;
        Some(if v4 {
            IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
        } else {
            IpAddr::V6(Ipv6Addr::from(bytes))
        })
    };
    let port = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    Some(Listed {
        src: SocketAddr::new(ip(8)?, port(4)?),
        dst: SocketAddr::new(ip(24)?, port(6)?),
        established: *message.get(1)? == TCP_ESTABLISHED,
        uid: u32_at(message, 64)?,
        inode: u32_at(message, 68)?,
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
