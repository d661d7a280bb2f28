//! An HTTP proxy as offices have it: `proxy ADDRESS [USER:PASSWORD]` listens
//! there, prints its address, and connects whoever asks by CONNECT to port 443
//! of an IP address. With credentials it asks for them by the Basic scheme.
//! Ends when its standard input does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// No request is longer.
const REQUEST_MAX_BYTES: u64 = 16 << 10;
/// For the request and for the connection that it asks for.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments
        .next()
        .context("usage: proxy ADDRESS [USER:PASSWORD]")?;
    let authorization = arguments
        .next()
        .map(|credentials| format!("Basic {}", base64(credentials.as_bytes())));
    let listener = TcpListener::bind(&address).with_context(|| address.clone())?;
    println!("{}", listener.local_addr()?);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let authorization = authorization.clone();
            // A client that breaks off is nobody's concern here.
            thread::spawn(move || serve(&client, authorization.as_deref()));
        }
    });
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn serve(client: &TcpStream, authorization: Option<&str>) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    // The client says nothing after its request until it is answered.
    let lines = BufReader::new(client.take(REQUEST_MAX_BYTES)).lines();
    let head: Vec<String> = lines
        .take_while(|line| !matches!(line.as_deref(), Ok("")))
        .collect::<io::Result<_>>()?;
    let server = match answer(&head, authorization) {
        Ok(server) => server,
        Err(refusal) => {
            let end = "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return { client }.write_all(format!("HTTP/1.1 {refusal}{end}").as_bytes());
        }
    };
    { client }.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    client.set_read_timeout(None)?;
    thread::scope(|scope| {
        scope.spawn(|| pump(client, &server));
        pump(&server, client);
    });
    Ok(())
}

/// The connection asked for, or the status that refuses it.
fn answer(head: &[String], authorization: Option<&str>) -> Result<TcpStream, String> {
    let mut request = head.iter().flat_map(|line| line.split(' '));
    let (method, target) = (request.next(), request.next());
    let given = head.iter().skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("proxy-authorization")
            .then_some(value.trim())
    });
    if authorization.is_some() && given != authorization {
        return Err(
            "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"office\""
                .to_owned(),
        );
    }
    if method != Some("CONNECT") {
        return Err("405 Method Not Allowed".to_owned());
    }
    let target = target.and_then(|target| target.parse::<SocketAddr>().ok());
    let Some(target) = target.filter(|target| target.port() == 443) else {
        return Err("403 Forbidden".to_owned());
    };
    TcpStream::connect_timeout(&target, PATIENCE).map_err(|_| "502 Bad Gateway".to_owned())
}

fn pump(from: &TcpStream, to: &TcpStream) {
    // Whichever way it ended, the other side learns that no more will come.
    let _ = io::copy(&mut { from }, &mut { to });
    let _ = to.shutdown(Shutdown::Write);
}

/// RFC 4648, for one header.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, place| {
            bits << 8 | usize::from(group.get(place).copied().unwrap_or(0))
        });
        for place in 0..4 {
            // Beyond the alphabet, and so padding, where the group has ended.
            let digit = if place > group.len() {
                64
            } else {
                bits >> (18 - 6 * place) & 63
            };
            text.push(DIGITS.get(digit).map_or('=', |digit| char::from(*digit)));
        }
    }
    text
}
