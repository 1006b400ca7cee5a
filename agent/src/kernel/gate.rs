//! Back-pressure for netlink events.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::BufMut;
use futures_util::task::AtomicWaker;
use netlink_sys::{AsyncSocket, Socket, SocketAddr, TokioSocket};

/// Datagrams that may be read ahead of their consumer.
const AHEAD: usize = 16;

/// How many datagrams may still be read.
#[derive(Default)]
pub struct Gate {
    left: AtomicUsize,
    reader: AtomicWaker,
}

impl Gate {
    /// The consumer wants more.
    pub fn open(&self) {
        if self.left.swap(AHEAD, Ordering::Relaxed) == 0 {
            self.reader.wake();
        }
    }

    fn take_one(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

/// A socket that reads no more than its consumer takes.
///
/// netlink-proto reads all there is and hands it on through a channel without bounds: a burst of
/// 1000 new links, parsed, was 8 MiB of memory that the allocator kept. Here the burst waits in
/// the kernel's receive buffer, and what does not fit there is an overrun, which is noticed.
pub struct GatedSocket {
    socket: TokioSocket,
    /// Shared with the consumer.
    pub gate: Arc<Gate>,
}

impl AsyncSocket for GatedSocket {
    fn socket_ref(&self) -> &Socket {
        self.socket.socket_ref()
    }

    fn socket_mut(&mut self) -> &mut Socket {
        self.socket.socket_mut()
    }

    fn new(protocol: isize) -> io::Result<Self> {
        Ok(Self { socket: TokioSocket::new(protocol)?, gate: Arc::default() })
    }

    fn poll_send(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_send(cx, buf)
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        addr: &SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_send_to(cx, buf, addr)
    }

    fn poll_recv<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<()>> {
        self.gated(cx, |cx| self.socket.poll_recv(cx, buf))
    }

    fn poll_recv_from<B: BufMut>(
        &self,
        cx: &mut Context<'_>,
        buf: &mut B,
    ) -> Poll<io::Result<SocketAddr>> {
        self.gated(cx, |cx| self.socket.poll_recv_from(cx, buf))
    }

    fn poll_recv_from_full(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        self.gated(cx, |cx| self.socket.poll_recv_from_full(cx))
    }
}

impl GatedSocket {
    fn gated<T>(
        &self,
        cx: &mut Context<'_>,
        receive: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.gate.reader.register(cx.waker());
        if !self.gate.take_one() {
            return Poll::Pending;
        }
        let received = receive(cx);
        if received.is_pending() {
            self.gate.left.fetch_add(1, Ordering::Relaxed);
        }
        received
    }
}
