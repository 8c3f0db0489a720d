//! Sockets and readiness, as thin as they can be.

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sockopt};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};

/// Connections waiting to be accepted.
const BACKLOG: i32 = 4096;

/// Connections of a run come from this many addresses in turn: one has not enough ports for a run with a connection per
/// request.
const SOURCES: u8 = 250;

/// The event that says that [`Poll::wake_at`] came.
const TIMER: u64 = u64::MAX;

/// Nanoseconds of the monotonic clock.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A socket that listens on loopback.
pub(crate) fn listen(port: u16) -> io::Result<OwnedFd> {
    let socket = tcp()?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// The next connection that waits, if any.
pub(crate) fn accept(listener: &OwnedFd) -> Option<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::accept_with(listener, flags).ok()?;
    let _ = sockopt::set_tcp_nodelay(&socket, true);
    Some(socket)
}

/// Begins to connect to a port of loopback, from one of many addresses of loopback.
pub(crate) fn connect(port: u16, turn: usize) -> io::Result<OwnedFd> {
    let socket = tcp()?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    let source = Ipv4Addr::new(127, 0, 1, (turn % usize::from(SOURCES)) as u8 + 2);
    rustix::net::bind(&socket, &SocketAddrV4::new(source, 0))?;
    match rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error.into()),
    }
}

/// Whether a connection came up.
pub(crate) fn is_connected(socket: &OwnedFd) -> bool {
    matches!(sockopt::socket_error(socket), Ok(Ok(())))
}

fn tcp() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, Some(ipproto::TCP))?)
}

/// What came of reading.
pub(crate) enum Got {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The end, or an error.
    End,
}

/// Reads once.
pub(crate) fn recv(socket: &OwnedFd, room: &mut [u8]) -> Got {
    match rustix::net::recv(socket, room, RecvFlags::empty()) {
        Ok((_, 0)) => Got::End,
        Ok((_, n)) => Got::Bytes(n),
        Err(Errno::AGAIN) => Got::Nothing,
        Err(_) => Got::End,
    }
}

/// Writes once; 0 where there is no room. `None`: broken.
pub(crate) fn send(socket: &OwnedFd, bytes: &[u8]) -> Option<usize> {
    match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
        Ok(n) => Some(n),
        Err(Errno::AGAIN) => Some(0),
        Err(_) => None,
    }
}

/// A socket as rustls reads and writes it.
pub(crate) struct Wire<'a>(pub(crate) &'a OwnedFd);

impl io::Read for Wire<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self.0, room, RecvFlags::empty())?.1)
    }
}

impl io::Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, bytes, SendFlags::NOSIGNAL)?)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes on their way out, and whether the poll looks for room for them.
pub(crate) struct Outbox {
    /// What is to be sent; the first `sent` bytes have been.
    pub(crate) bytes: Vec<u8>,
    sent: usize,
    looks: bool,
}

impl Outbox {
    /// An empty one; `looks`: whether the socket was added with interest in writing.
    pub(crate) fn new(looks: bool) -> Self {
        Self { bytes: Vec::new(), sent: 0, looks }
    }

    /// Sends what can be sent. `None`: broken; else whether something is left.
    pub(crate) fn send(&mut self, socket: &OwnedFd) -> Option<bool> {
        if self.sent < self.bytes.len() {
            self.sent += send(socket, self.bytes.get(self.sent..)?)?;
            if self.sent == self.bytes.len() {
                self.bytes.clear();
                self.sent = 0;
            }
        }
        Some(!self.bytes.is_empty())
    }

    /// Has the poll look for room where something is left, and not where nothing is.
    pub(crate) fn look(&mut self, poll: &Poll, socket: &OwnedFd, token: u64, left: bool) {
        if left != self.looks {
            self.looks = left;
            let _ = poll.modify(socket, token, left);
        }
    }
}

/// An epoll instance with a timer.
pub(crate) struct Poll {
    epoll: OwnedFd,
    timer: OwnedFd,
    events: Vec<Event>,
}

/// A socket is ready.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    /// What it was added with.
    pub(crate) token: u64,
    /// There is something to read, or an end.
    pub(crate) readable: bool,
}

impl Poll {
    /// A poll that reports at most `batch` events at once.
    pub(crate) fn new(batch: usize) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        Ok(Self { epoll, timer, events: Vec::with_capacity(batch) })
    }

    /// Looks for input, and for room where `writes`.
    pub(crate) fn add(&self, socket: impl AsFd, token: u64, writes: bool) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token), interest(writes))?)
    }

    fn modify(&self, socket: impl AsFd, token: u64, writes: bool) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(token), interest(writes))?)
    }

    /// Makes [`Self::wait`] return at a time of [`now`], to the nanosecond (epoll itself counts in milliseconds).
    pub(crate) fn wake_at(&self, at: u64) -> io::Result<()> {
        let it_value = Timespec { tv_sec: (at / 1_000_000_000) as i64, tv_nsec: (at % 1_000_000_000) as _ };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec)?;
        Ok(())
    }

    /// Waits for what is ready, `millis` at most, and hands it over in `ready`.
    pub(crate) fn wait(&mut self, millis: i64, ready: &mut Vec<Ready>) {
        let timeout = Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
        self.events.clear();
        ready.clear();
        // A signal ends a wait early; the caller comes again.
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&timeout));
        ready.extend(self.events.iter().filter(|event| event.data.u64() != TIMER).map(|event| {
            let flags = event.flags;
            let readable = flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR);
            Ready { token: event.data.u64(), readable }
        }));
    }
}

fn interest(writes: bool) -> EventFlags {
    if writes { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN }
}
