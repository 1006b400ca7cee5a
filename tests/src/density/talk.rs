//! Traffic: pairs that have talked go on talking, both ways, as long as they should.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Pairs talk as often: an entry that is used within 5 s is kept (`delay_first_probe_time`).
const EVERY: Duration = Duration::from_secs(3);
/// How long an answer may take.
const ANSWERS_WITHIN: Duration = Duration::from_millis(100);
/// Where questions and answers go.
const PORT: u16 = 7777;
/// Where what need not be read goes.
const SINK: u16 = 7778;

/// One who talks: the node or a pod.
pub struct Talker {
    pub address: Ipv4Addr,
    pub socket: Arc<UdpSocket>,
    /// Full soon; then the kernel drops what comes, and no error goes back.
    _sink: UdpSocket,
}

impl Talker {
    /// In the calling thread's namespace.
    pub fn new(address: Ipv4Addr) -> Self {
        let bind = |port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        let socket = bind(PORT);
        socket.set_read_timeout(Some(ANSWERS_WITHIN)).unwrap();
        Self { address, socket: Arc::new(socket), _sink: bind(SINK) }
    }

    /// Asks another one, who answers; whether both heard each other.
    pub fn asks(&self, other: &Self) -> bool {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed).to_ne_bytes();
        self.tells(other, number) && other.tells(self, number)
    }

    fn tells(&self, other: &Self, number: [u8; 8]) -> bool {
        // An error or silence: both are what a full table looks like.
        if self.socket.send_to(&number, (other.address, PORT)).is_err() {
            return false;
        }
        let mut heard = [0; 8];
        loop {
            match other.socket.recv(&mut heard) {
                Ok(_) if heard == number => return true,
                // The late answer to an earlier question.
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }
}

type Pair = (usize, usize);
type Pairs = Arc<Mutex<BTreeMap<Pair, [(Arc<UdpSocket>, Ipv4Addr); 2]>>>;

/// The pairs that talk, and the thread that has them talk.
pub struct Talks {
    pairs: Pairs,
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Talks {
    pub fn new() -> Self {
        let pairs = Pairs::default();
        let (stop, stopped) = channel();
        let all = pairs.clone();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                for (socket, to) in
                    all.lock().unwrap_or_else(PoisonError::into_inner).values().flatten()
                {
                    // What a full table refuses is counted by the kernel.
                    let _ = socket.send_to(&[0], (*to, SINK));
                }
            }
        });
        Self { pairs, thread: Some((stop, thread)) }
    }

    pub fn begin(&self, pair: Pair, one: &Talker, other: &Talker) {
        let ways = [(one.socket.clone(), other.address), (other.socket.clone(), one.address)];
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner).insert(pair, ways);
    }

    pub fn end(&self, pair: Pair) {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner).remove(&pair);
    }

    /// Nobody talks any more, and no socket is held.
    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            let _ = thread.join();
        }
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
