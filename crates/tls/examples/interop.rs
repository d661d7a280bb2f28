//! One end of a connection for another library to talk to, by TLS as two peers
//! speak it. `tests/openssl/interop.py` runs it.
//!
//! ```text
//! interop client ADDRESS:PORT
//! interop server            # says the port that it listens on
//! ```
//!
//! Says the key of the other end, sends a megabyte, and expects the same bytes back.

#![allow(clippy::indexing_slicing, reason = "what goes wrong may as well panic")]

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use pinhole_proto::tls::{self, ALPN_PEER, Expect, Identity};
use pinhole_tls::{Handshake, Opener, Step};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;

type Outcome<T> = Result<T, Box<dyn Error>>;

const SENT_BYTES: usize = 1_000_000;

fn main() -> Outcome<()> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| "no key")?;
    let identity = Identity::from_pkcs8(document.as_ref())?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (mut tcp, mut handshake) = match arguments.as_slice() {
        ["client", address] => {
            let config = tls::client_config(&identity, Expect::AnyKey, ALPN_PEER)?;
            let handshake = Handshake::client(config, tls::server_name())?;
            (TcpStream::connect(address)?, handshake)
        }
        ["server"] => {
            let listener = TcpListener::bind(("127.0.0.1", 0))?;
            println!("{}", listener.local_addr()?.port());
            let config = tls::server_config(&identity, Expect::AnyKey, ALPN_PEER)?;
            (listener.accept()?.0, Handshake::server(config)?)
        }
        _ => return Err("client ADDRESS, or server".into()),
    };
    let mut arrived = Vec::new();
    shake_hands(&mut handshake, &mut tcp, &mut arrived)?;
    let key = tls::proven_key(handshake.connection(), ALPN_PEER)?;
    println!("{}", data_encoding::HEXLOWER.encode(key.as_bytes()));
    println!(
        "{}",
        data_encoding::HEXLOWER.encode(identity.key().as_bytes())
    );
    let (opener, mut sealer) = handshake.into_records();
    let sent: Vec<u8> = (0..=250).cycle().take(SENT_BYTES).collect();
    let reading = tcp.try_clone()?;
    let heard =
        std::thread::spawn(move || hear(opener, reading, arrived).map_err(|e| e.to_string()));
    for piece in sent.chunks(50_000) {
        sealer.seal(piece)?;
        tcp.write_all(sealer.sealed())?;
        sealer.sent(sealer.sealed().len());
    }
    sealer.close()?;
    tcp.write_all(sealer.sealed())?;
    let heard = heard.join().map_err(|_| "the reader has panicked")??;
    if heard != sent {
        return Err(format!("{} bytes came back, or others", heard.len()).into());
    }
    println!("the same");
    Ok(())
}

fn shake_hands(
    handshake: &mut Handshake,
    tcp: &mut TcpStream,
    arrived: &mut Vec<u8>,
) -> Outcome<()> {
    loop {
        let (done_bytes, step) = handshake.step(arrived);
        arrived.drain(..done_bytes);
        let step = step?;
        if step == Step::Again {
            continue;
        }
        tcp.write_all(&handshake.take_queued())?;
        if step == Step::Ready {
            return Ok(());
        }
        read_some(tcp, arrived)?;
    }
}

fn read_some(tcp: &mut TcpStream, arrived: &mut Vec<u8>) -> Outcome<()> {
    let mut bytes = [0; 64 * 1024];
    let count = tcp.read(&mut bytes)?;
    if count == 0 {
        return Err("the connection has ended".into());
    }
    arrived.extend_from_slice(&bytes[..count]);
    Ok(())
}

/// All that comes until the other end has said that it was all.
fn hear(mut opener: Opener, mut tcp: TcpStream, mut arrived: Vec<u8>) -> Outcome<Vec<u8>> {
    let mut heard = Vec::new();
    while !opener.peer_closed() {
        if let Some(opened) = opener.open(&mut arrived, 0)? {
            heard.extend_from_slice(&arrived[..opened.data_bytes]);
            arrived.drain(..opened.record_bytes);
        } else {
            read_some(&mut tcp, &mut arrived)?;
        }
    }
    Ok(heard)
}
