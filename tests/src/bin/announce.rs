//! Announces somebody's key under any name, at a port of this host that may be
//! anybody's: what somebody on the LAN can do who means no good.
//!
//!     announce NAME KEY FINGERPRINT PORT
//!
//! Port 0 is one where connections are taken, with a line for each, and nothing
//! is ever said.
//! Prints `ready`, and ends with its standard input.

use std::io::Read as _;
use std::net::TcpListener;
use std::thread;

use mdns_sd::{IfKind, ServiceDaemon, ServiceInfo};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, key, fingerprint, port] = arguments.as_slice() else {
        panic!("NAME KEY FINGERPRINT PORT");
    };
    let mut port: u16 = port.parse().expect("a port");
    let silent = TcpListener::bind("0.0.0.0:0").expect("a listener");
    if port == 0 {
        port = silent.local_addr().expect("an address").port();
        thread::spawn(move || {
            let mut taken = Vec::new();
            for stream in silent.incoming() {
                println!("taken");
                taken.push(stream);
            }
        });
    }
    let daemon = ServiceDaemon::new().expect("a daemon");
    daemon
        .disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])
        .expect("no loopback");
    let said = [("v", "1"), ("name", name), ("key", key)];
    let host = "forged.local.";
    let service = ServiceInfo::new(
        "_pinhole._tcp.local.",
        fingerprint,
        host,
        "",
        port,
        &said[..],
    );
    let mut service = service.expect("a service").enable_addr_auto();
    service.set_requires_probe(false);
    daemon.register(service).expect("announcing");
    println!("ready");
    let mut end = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut end);
    let ended = daemon.shutdown().expect("an end");
    let _ = ended.recv();
}
