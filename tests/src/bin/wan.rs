//! Long-distance lines: `wan CAPTURE LINE...` bridges, for each line, the
//! interfaces LINE0 (at the site) and LINE1 (at the internet). Stands in for the
//! kernel's netem, which is not always built in.
//!
//! Each line read from standard input, `LINE DELAY_US JITTER_US SKEW_US LOSS_PERCENT`,
//! changes how one of them carries frames, and is answered with `set`: with a
//! delay, a random one on top that leaves the order as it is, one more for what
//! comes from the server, and losses. A frame is what the sender's kernel makes:
//! a whole run of segments where offloading is on.
//!
//! Frames are appended to the file `CAPTURE` until it is large, so that a test
//! can look at what crossed the lines. Ends when its standard input does.

#[cfg(target_os = "linux")]
mod line {
    use std::collections::HashMap;
    use std::fs::{self, File};
    use std::hash::{BuildHasher, RandomState};
    use std::io::{self, Read, Write};
    use std::os::fd::AsRawFd;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::sync::{Arc, Mutex, PoisonError};
    use std::thread;
    use std::time::{Duration, Instant};

    use anyhow::{Context, Result};
    use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

    /// Holds the largest segment that offloading makes, with its headers.
    const FRAME_MAX_BYTES: usize = 68 << 10;
    /// Frames in flight in one direction; more are dropped, as routers do.
    const QUEUE_FRAMES: usize = 8192;

    /// No test looks through more, and benchmarks send without end.
    const CAPTURE_BYTES: u64 = 64 << 20;

    /// From Linux's `if_packet.h`: frames carry a `virtio_net_hdr` before them.
    const PACKET_VNET_HDR: i32 = 15;
    const VNET_HDR_BYTES: usize = 10;

    /// The server's network, on IPv4 and IPv6.
    const SERVER_V4: [u8; 3] = [203, 0, 113];
    const SERVER_V6: [u8; 6] = [0x20, 0x01, 0x0d, 0xb8, 0, 5];

    /// How a line carries frames.
    #[derive(Clone, Copy, Default)]
    struct Conditions {
        delay: Duration,
        jitter: Duration,
        skew: Duration,
        loss_percent: u64,
    }

    struct Capture {
        file: File,
        written_bytes: u64,
    }

    type Held = (Instant, Vec<u8>);

    /// One direction of one line, as its reader sees it.
    struct WanDirection {
        conditions: Arc<Mutex<Conditions>>,
        capture: Arc<Mutex<Capture>>,
        random: u64,
        others: Queue,
        /// What comes from the server may be held back longer, and does not hold
        /// up the rest.
        server: Queue,
    }

    /// Frames under way, in order.
    struct Queue {
        hold: SyncSender<Held>,
        last_due: Instant,
    }

    pub(crate) fn run(arguments: &[String]) -> Result<()> {
        let [capture, names @ ..] = arguments else {
            anyhow::bail!("usage: wan CAPTURE LINE...");
        };
        let file = File::options().create(true).append(true).open(capture)?;
        let capture = Arc::new(Mutex::new(Capture {
            file,
            written_bytes: 0,
        }));
        let mut lines = HashMap::new();
        for name in names {
            let conditions = Arc::new(Mutex::new(Conditions::default()));
            let site = Arc::new(attach(&format!("{name}0"))?);
            let internet = Arc::new(attach(&format!("{name}1"))?);
            carry(Arc::clone(&site), &internet, &conditions, &capture);
            carry(internet, &site, &conditions, &capture);
            lines.insert(name.as_str(), conditions);
        }
        println!("ready");
        for command in io::stdin().lines() {
            set(&lines, &command?)?;
            println!("set");
        }
        Ok(())
    }

    fn set(lines: &HashMap<&str, Arc<Mutex<Conditions>>>, command: &str) -> Result<()> {
        let mut words = command.split_whitespace();
        let line = words.next().and_then(|name| lines.get(name));
        let line = line.with_context(|| format!("no such line: {command}"))?;
        let mut number = || -> Result<u64> { Ok(words.next().context("a number")?.parse()?) };
        let conditions = Conditions {
            delay: Duration::from_micros(number()?),
            jitter: Duration::from_micros(number()?),
            skew: Duration::from_micros(number()?),
            loss_percent: number()?,
        };
        *line.lock().unwrap_or_else(PoisonError::into_inner) = conditions;
        Ok(())
    }

    fn carry(
        from: Arc<Socket>,
        to: &Arc<Socket>,
        conditions: &Arc<Mutex<Conditions>>,
        capture: &Arc<Mutex<Capture>>,
    ) {
        let mut direction = WanDirection {
            conditions: Arc::clone(conditions),
            capture: Arc::clone(capture),
            // Anything but zero, of which the generator would make only zeros.
            random: RandomState::new().hash_one(0) | 1,
            others: queue(Arc::clone(to)),
            server: queue(Arc::clone(to)),
        };
        thread::spawn(move || {
            let mut buffer = vec![0; FRAME_MAX_BYTES];
            loop {
                // An interface that is down for the moment is a line that is cut.
                if let Ok(len) = (&*from).read(&mut buffer) {
                    direction.take_in(buffer.get(..len).unwrap_or_default());
                }
            }
        });
    }

    fn queue(to: Arc<Socket>) -> Queue {
        let (hold, release): (_, Receiver<Held>) = sync_channel(QUEUE_FRAMES);
        thread::spawn(move || {
            for (due, frame) in release {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // Lost when the far interface is down, like on a real line.
                let _ = to.send(&frame);
            }
        });
        let last_due = Instant::now();
        Queue { hold, last_due }
    }

    impl WanDirection {
        fn take_in(&mut self, frame: &[u8]) {
            let conditions = *self
                .conditions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Ok(mut capture) = self.capture.lock()
                && capture.written_bytes < CAPTURE_BYTES
            {
                capture.written_bytes += frame.len() as u64;
                let written = capture.file.write_all(frame);
                written.expect("writing the capture");
            }
            if self.draw(100) < conditions.loss_percent {
                return;
            }
            let mut due = Instant::now() + conditions.delay + self.at_most(conditions.jitter);
            let server = is_from_server(frame);
            if server {
                due += self.at_most(conditions.skew);
            }
            let queue = if server {
                &mut self.server
            } else {
                &mut self.others
            };
            queue.last_due = due.max(queue.last_due);
            // A full queue loses the frame; the sender will notice.
            let _ = queue.hold.try_send((queue.last_due, frame.to_vec()));
        }

        /// A random number below `end`, by xorshift.
        fn draw(&mut self, end: u64) -> u64 {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.random % end
        }

        fn at_most(&mut self, most: Duration) -> Duration {
            let most_us = u64::try_from(most.as_micros()).unwrap_or(u64::MAX - 1);
            Duration::from_micros(self.draw(most_us + 1))
        }
    }

    fn is_from_server(frame: &[u8]) -> bool {
        let Some((_, ethernet)) = frame.split_at_checked(VNET_HDR_BYTES) else {
            return false;
        };
        match ethernet.get(12..14) {
            Some([0x08, 0x00]) => ethernet.get(26..29) == Some(&SERVER_V4[..]),
            Some([0x86, 0xdd]) => ethernet.get(22..28) == Some(&SERVER_V6[..]),
            _ => false,
        }
    }

    /// A packet socket that sees and sends whole frames of one interface.
    fn attach(interface: &str) -> Result<Socket> {
        let index = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex"))
            .with_context(|| format!("no interface {interface}"))?;
        let every_protocol = u16::try_from(libc::ETH_P_ALL)?.to_be();
        // With protocol 0 it hears nothing until it is bound to its interface.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        // Segments of 64 KiB stay whole: their metadata travels before them.
        set_option(&socket, libc::SOL_PACKET, PACKET_VNET_HDR, 1)?;
        set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20)?;
        socket.bind(&address(index.trim().parse()?, every_protocol))?;
        Ok(socket)
    }

    #[allow(unsafe_code)]
    fn address(index: i32, protocol: u16) -> SockAddr {
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: a `sockaddr_ll` is one of Linux's socket addresses.
        let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
        link.sll_family = u16::try_from(libc::AF_PACKET).expect("16 bits");
        link.sll_protocol = protocol;
        link.sll_ifindex = index;
        let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).expect("small");
        // SAFETY: the storage holds an address of that size.
        unsafe { SockAddr::new(storage, size) }
    }

    #[allow(unsafe_code)]
    fn set_option(socket: &Socket, level: i32, option: i32, value: i32) -> io::Result<()> {
        let size = libc::socklen_t::try_from(size_of::<i32>()).expect("small");
        // SAFETY: the pointer and the size describe `value`, which outlives the call.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    line::run(&arguments)
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("wan needs Linux's packet sockets");
    std::process::exit(2);
}
