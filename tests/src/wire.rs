//! A line to the server that a test can cut: every TCP connection to it goes on
//! to the server.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// See the module. It lasts as long as the process.
pub struct Wire {
    address: SocketAddr,
    state: Arc<Mutex<WireState>>,
}

#[derive(Default)]
struct WireState {
    is_down: bool,
    open: Vec<WireConnection>,
}

struct WireConnection {
    ends: [TcpStream; 2],
    is_mute: Arc<AtomicBool>,
}

fn lock(state: &Mutex<WireState>) -> MutexGuard<'_, WireState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    /// To the server at this address, which may have a fingerprint.
    ///
    /// # Panics
    /// When there is no port to listen at.
    #[must_use]
    pub fn to(server: &str) -> Self {
        let server = server.split('#').next().unwrap_or(server).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::<Mutex<WireState>>::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let mut state = lock(&shared);
                if state.is_down {
                    continue;
                }
                let Ok(far) = TcpStream::connect(&server) else {
                    continue;
                };
                let connection = connect([near, far]).expect("threads and handles");
                state.open.push(connection);
            }
        });
        Self { address, state }
    }

    /// Where it begins.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection. New ones are made.
    pub fn cut(&self) {
        break_all(&mut lock(&self.state));
    }

    /// Breaks every connection, and lets none be made.
    pub fn down(&self) {
        let mut state = lock(&self.state);
        state.is_down = true;
        break_all(&mut state);
    }

    /// Lets connections be made again.
    pub fn up(&self) {
        lock(&self.state).is_down = false;
    }

    /// From now on nothing reaches the server on the connections there are.
    pub fn mute(&self) {
        for connection in &lock(&self.state).open {
            connection.is_mute.store(true, Ordering::SeqCst);
        }
    }
}

fn break_all(state: &mut WireState) {
    for end in state.open.drain(..).flat_map(|connection| connection.ends) {
        // One that has ended already is as good.
        let _ = end.shutdown(Shutdown::Both);
    }
}

fn connect(ends: [TcpStream; 2]) -> std::io::Result<WireConnection> {
    let is_mute = Arc::new(AtomicBool::new(false));
    let [near, far] = &ends;
    for (from, to, is_mute) in [(near, far, Some(Arc::clone(&is_mute))), (far, near, None)] {
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        thread::spawn(move || pump(from, to, is_mute.as_deref()));
    }
    Ok(WireConnection { ends, is_mute })
}

fn pump(mut from: TcpStream, mut to: TcpStream, is_mute: Option<&AtomicBool>) {
    let mut buffer = [0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let passes = is_mute.is_none_or(|is_mute| !is_mute.load(Ordering::SeqCst));
        if passes && to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // The other side may have broken it already.
    let _ = to.shutdown(Shutdown::Both);
}
