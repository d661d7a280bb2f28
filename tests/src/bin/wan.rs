//! A long-distance line: `wan DELAY_MS CAPTURE IF0 IF1 [IF0 IF1]...` bridges
//! each pair of interfaces and holds every frame back for `DELAY_MS` in each
//! direction. Stands in for the kernel's netem, which is not always built in.
//!
//! Frames are appended to the file `CAPTURE` until it is large, so that a test
//! can look at what crossed the line. Ends when its standard input does.

#[cfg(target_os = "linux")]
mod line {
    use std::fs::{self, File};
    use std::io::{self, Read, Write};
    use std::os::fd::AsRawFd;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::{Duration, Instant};

    use anyhow::{Context, Result, ensure};
    use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

    /// Holds the largest segment that offloading makes, with its headers.
    const FRAME_MAX_BYTES: usize = 68 << 10;
    /// Frames in flight in one direction; more are dropped, as routers do.
    const QUEUE_FRAMES: usize = 8192;

    /// No test looks through more, and benchmarks send without end.
    const CAPTURE_BYTES: u64 = 64 << 20;

    /// From Linux's `if_packet.h`: frames carry a `virtio_net_hdr` before them.
    const PACKET_VNET_HDR: i32 = 15;

    struct Capture {
        file: File,
        written_bytes: u64,
    }

    type Held = (Instant, Vec<u8>);

    pub(crate) fn run(arguments: &[String]) -> Result<()> {
        let [delay_ms, capture, interfaces @ ..] = arguments else {
            anyhow::bail!("usage: wan DELAY_MS CAPTURE IF0 IF1 [IF0 IF1]...");
        };
        let delay = Duration::from_millis(delay_ms.parse().context("DELAY_MS")?);
        let file = File::options().create(true).append(true).open(capture)?;
        let capture = Arc::new(Mutex::new(Capture {
            file,
            written_bytes: 0,
        }));
        let (pairs, rest) = interfaces.as_chunks();
        ensure!(rest.is_empty(), "interfaces come in pairs");
        for [one, other] in pairs {
            let (one, other) = (Arc::new(attach(one)?), Arc::new(attach(other)?));
            carry(Arc::clone(&one), Arc::clone(&other), delay, &capture);
            carry(other, one, delay, &capture);
        }
        println!("ready");
        io::stdin().read_to_end(&mut Vec::new())?;
        Ok(())
    }

    fn carry(from: Arc<Socket>, to: Arc<Socket>, delay: Duration, capture: &Arc<Mutex<Capture>>) {
        let (hold, release) = sync_channel(QUEUE_FRAMES);
        let capture = Arc::clone(capture);
        thread::spawn(move || take_in(&from, &hold, delay, &capture));
        thread::spawn(move || let_out(&release, &to));
    }

    fn take_in(from: &Socket, hold: &SyncSender<Held>, delay: Duration, capture: &Mutex<Capture>) {
        let mut buffer = vec![0; FRAME_MAX_BYTES];
        loop {
            // An interface that is down for the moment is a line that is cut.
            let Ok(len) = (&*from).read(&mut buffer) else {
                continue;
            };
            let frame = buffer.get(..len).unwrap_or_default().to_vec();
            let due = Instant::now() + delay;
            if let Ok(mut capture) = capture.lock()
                && capture.written_bytes < CAPTURE_BYTES
            {
                capture.written_bytes += len as u64;
                let written = capture.file.write_all(&frame);
                written.expect("writing the capture");
            }
            // A full queue loses the frame; the sender will notice.
            let _ = hold.try_send((due, frame));
        }
    }

    fn let_out(release: &Receiver<Held>, to: &Socket) {
        for (due, frame) in release {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // Lost when the far interface is down, like on a real line.
            let _ = to.send(&frame);
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
        set(&socket, libc::SOL_PACKET, PACKET_VNET_HDR, 1)?;
        set(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20)?;
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
    fn set(socket: &Socket, level: i32, option: i32, value: i32) -> io::Result<()> {
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
