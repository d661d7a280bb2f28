//! What can happen to the laboratory does happen, shown with plain sockets.
#![cfg(target_os = "linux")]
#![allow(clippy::indexing_slicing)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use pinhole_tests::lab::measure::{address, dial, observe, socket};
use pinhole_tests::lab::{
    self, Host, Lab, Line, NatFiltering, NatMapping, Outbound, Plan, Router, RouterPortMapping,
    Site, measure,
};

const PORT: u16 = 40_010;

/// One site, without a delay.
fn near(site: impl Into<Site>) -> Option<Lab> {
    lab::build_or_skip(Plan::one_lan(site).delayed(Duration::ZERO))
}

fn forbidding(outbound: Outbound) -> Router {
    Router {
        outbound,
        ..Router::HOME
    }
}

/// A listener on that port of a host.
fn listen(lab: &Lab, host: Host, port: u16) -> TcpListener {
    lab.inside(host, || {
        let listener = socket(None, port);
        listener.listen(8).expect("listening");
        listener.into()
    })
}

fn reach(lab: &Lab, from: Host, to: SocketAddr) -> Result<TcpStream, ErrorKind> {
    let dialled = lab.inside(from, || dial(socket(None, 0), to));
    dialled.map_err(|error| error.kind())
}

#[test]
fn a_router_that_reboots_forgets_and_one_that_is_renumbered_moves() {
    let Some(lab) = near(Router::HOME) else {
        return;
    };
    let seen_by = |port| observe(&lab, Host::A, PORT, address(Lab::SERVER, port));
    let first = seen_by(5010);
    assert_eq!(lab.tracked(Host::A).len(), 1);

    lab.reboot(Host::A);
    assert_eq!(lab.tracked(Host::A), Vec::<String>::new());
    let second = seen_by(5016);
    assert_eq!(second.address.ip(), first.address.ip());
    // Of sixteen thousand that it may draw.
    assert_ne!(second.address.port(), first.address.port());

    let other = lab.renumber(Host::A);
    assert_ne!(first.address.ip().to_string(), other);
    assert_eq!(seen_by(5017).address.ip().to_string(), other);
}

#[test]
fn lines_delay_lose_and_skew_as_they_are_told() {
    let Some(lab) = near(Router::HOME) else {
        return;
    };
    let _listening = listen(&lab, Host::S, 5011);
    let round_trip = || {
        let begun = Instant::now();
        let reached = reach(&lab, Host::A, address(Lab::SERVER, 5011));
        reached.map(|_| begun.elapsed())
    };
    let slow = Line::delayed(Duration::from_millis(100));
    lab.set_line(Host::A, slow);
    let elapsed = round_trip().expect("a slow connection");
    assert!(elapsed >= Duration::from_millis(200), "{elapsed:?}");

    let cut = Line {
        loss_percent: 100,
        ..slow
    };
    lab.set_line(Host::A, cut);
    assert_eq!(round_trip(), Err(ErrorKind::TimedOut));

    let skewed = Line {
        server_skew: Duration::from_millis(150),
        ..Line::delayed(Duration::ZERO)
    };
    lab.set_line(Host::A, skewed);
    let trips = (0..8).map(|_| round_trip().expect("a skewed connection"));
    let (least, most) = trips.fold((Duration::MAX, Duration::ZERO), |(least, most), trip| {
        (least.min(trip), most.max(trip))
    });
    assert!(
        most - least > Duration::from_millis(20),
        "{least:?} to {most:?}"
    );
}

#[test]
fn a_host_notices_when_its_cable_is_pulled() {
    let Some(lab) = near(Router::HOME) else {
        return;
    };
    let carrier = || {
        let mut cat = lab.command(Host::A, "cat".as_ref());
        let output = cat.arg("/sys/class/net/eth0/carrier").output();
        String::from_utf8(output.expect("cat").stdout).expect("text")
    };
    assert_eq!(carrier().trim(), "1");
    lab.unplug(Host::A);
    assert_eq!(carrier().trim(), "0");
    lab.replug(Host::A);
    assert_eq!(carrier().trim(), "1");
}

#[test]
fn only_a_router_with_hairpinning_leads_back_to_its_lan() {
    for hairpin in [true, false] {
        let router = Router {
            hairpin,
            ..Router::HOME
        };
        let Some(lab) = near(router) else {
            return;
        };
        let _listening = listen(&lab, Host::A, PORT);
        let seen = observe(&lab, Host::A, PORT, address(Lab::SERVER, 5012));
        let reached = reach(&lab, Host::B, seen.address);
        assert_eq!(reached.is_ok(), hairpin, "{reached:?}");
    }
}

#[test]
fn behind_a_carrier_both_routers_translate_and_the_stricter_one_filters() {
    let site = Site {
        carrier: Some(Router::CARRIER),
        ..Router::HOME.into()
    };
    let Some(lab) = near(site) else {
        return;
    };
    assert_eq!(measure::mapping(&lab, Host::A), Router::HOME.mapping);
    assert_eq!(
        measure::filtering(&lab, Host::A),
        NatFiltering::AddressAndPortDependent
    );
    let home = lab.renumber(Host::A);
    let seen = observe(&lab, Host::A, PORT, address(Lab::SERVER, 5013)).address;
    assert_eq!(
        seen.ip().to_string(),
        home,
        "the carrier's is the public one"
    );
    lab.replace_router(Host::A, Router::SYMMETRIC);
    let NatMapping::AddressAndPortDependent(_) = measure::mapping(&lab, Host::A) else {
        panic!("the router was not replaced");
    };
}

#[test]
fn udp_is_blocked_where_it_is_planned() {
    for (outbound, passes) in [(Outbound::Anything, true), (Outbound::NoUdp, false)] {
        let Some(lab) = near(forbidding(outbound)) else {
            return;
        };
        let server = lab.inside(Host::S, || UdpSocket::bind((Lab::SERVER, 5014)));
        let server = server.expect("a socket");
        let patience = Some(Duration::from_millis(500));
        server.set_read_timeout(patience).expect("a timeout");
        let sent = lab.inside(Host::A, || {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(b"hello", (Lab::SERVER, 5014))
        });
        sent.expect("sending");
        assert_eq!(server.recv(&mut [0; 8]).is_ok(), passes, "{outbound:?}");
        let _listening = listen(&lab, Host::S, 5014);
        reach(&lab, Host::A, address(Lab::SERVER, 5014)).expect("TCP passes");
    }
}

/// What arrives at the server of what the host says.
fn heard(server: &TcpListener, mut stream: TcpStream, words: &[u8]) -> io::Result<Vec<u8>> {
    let (mut accepted, _) = server.accept()?;
    accepted.set_read_timeout(Some(Duration::from_millis(500)))?;
    stream.write_all(words)?;
    let mut arrived = vec![0; words.len()];
    accepted.read_exact(&mut arrived)?;
    Ok(arrived)
}

#[test]
fn where_only_tls_may_leave_nothing_else_does() {
    let Some(lab) = near(forbidding(Outbound::TlsOn443)) else {
        return;
    };
    let [https, other] = [443, 80].map(|port| listen(&lab, Host::S, port));
    let to = address(Lab::SERVER, 80);
    assert_eq!(reach(&lab, Host::A, to).unwrap_err(), ErrorKind::TimedOut);
    drop(other);
    let to = address(Lab::SERVER, 443);
    let hello = b"\x16\x03\x01 and so on";
    let stream = reach(&lab, Host::A, to).expect("port 443");
    assert_eq!(heard(&https, stream, hello).expect("TLS passes"), hello);
    let stream = reach(&lab, Host::A, to).expect("port 443");
    heard(&https, stream, b"GET / HTTP/1.1").expect_err("cut off");
}

#[test]
fn where_nothing_may_leave_a_proxy_does_it() {
    let Some(lab) = near(forbidding(Outbound::Nothing)) else {
        return;
    };
    let https = listen(&lab, Host::S, 443);
    let direct = reach(&lab, Host::A, address(Lab::SERVER, 443));
    assert_eq!(direct.unwrap_err(), ErrorKind::TimedOut);

    let proxy = lab.start_proxy(Host::A, Some("Aladdin:open sesame"));
    let ask = |request: &str| {
        let mut stream = reach(&lab, Host::A, proxy).expect("the proxy");
        stream.write_all(request.as_bytes()).expect("asking");
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("an answer");
        (String::from_utf8_lossy(&status).into_owned(), stream)
    };
    let (status, _) = ask("CONNECT 203.0.113.1:443 HTTP/1.1\r\n\r\n");
    assert_eq!(status, "HTTP/1.1 407");
    // The example of RFC 7617.
    let header = "Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n";
    let (status, _) = ask(&format!("CONNECT 203.0.113.1:80 HTTP/1.1\r\n{header}\r\n"));
    assert_eq!(status, "HTTP/1.1 403");
    let (status, stream) = ask(&format!("CONNECT 203.0.113.1:443 HTTP/1.1\r\n{header}\r\n"));
    assert_eq!(status, "HTTP/1.1 200");
    assert_eq!(
        heard(&https, stream, b"hello").expect("a way out"),
        b"hello"
    );
}

/// Asks the router at 10.1.0.1 for a TCP port, by a datagram.
fn ask_router(lab: &Lab, request: &[u8]) -> io::Result<Vec<u8>> {
    lab.inside(Host::A, || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        socket.send_to(request, "10.1.0.1:5351")?;
        let mut answer = vec![0; 1100];
        let (len, _) = socket.recv_from(&mut answer)?;
        answer.truncate(len);
        Ok(answer)
    })
}

/// The outside port that NAT-PMP (RFC 6886) gives for port 5020.
fn by_nat_pmp(lab: &Lab) -> io::Result<u16> {
    let request = [&[0, 2, 0, 0][..], &[0x13, 0x9c, 0x13, 0x9c], &[0, 0, 0, 60]].concat();
    let answer = ask_router(lab, &request)?;
    assert_eq!(answer[..4], [0, 130, 0, 0], "granted");
    Ok(u16::from_be_bytes([answer[10], answer[11]]))
}

/// The outside port that PCP (RFC 6887) gives for port 5021.
fn by_pcp(lab: &Lab) -> io::Result<u16> {
    let mut request = vec![2, 1, 0, 0, 0, 0, 0, 60];
    request.extend([0; 10].into_iter().chain([0xff, 0xff, 10, 1, 0, 10]));
    request.extend(*b"twelve bytes");
    request.extend([6, 0, 0, 0, 0x13, 0x9d, 0x13, 0x9d]);
    request.extend([0; 10].into_iter().chain([0xff, 0xff, 0, 0, 0, 0]));
    let answer = ask_router(lab, &request)?;
    assert_eq!(answer[..4], [2, 129, 0, 0], "granted");
    Ok(u16::from_be_bytes([answer[42], answer[43]]))
}

/// The outside port that UPnP gives for port 5022.
fn by_upnp(lab: &Lab) -> io::Result<u16> {
    let mut upnpc = lab.command(Host::A, "upnpc".as_ref());
    let output = upnpc
        .args(["-a", "10.1.0.10", "5022", "5022", "TCP"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if said.contains("is redirected to internal 10.1.0.10:5022") {
        Ok(5022)
    } else {
        Err(io::Error::other(said.into_owned()))
    }
}

fn opens_ports_only_by(has: RouterPortMapping) {
    let router = Router {
        port_mapping: Some(has),
        ..Router::SYMMETRIC
    };
    let Some(lab) = near(router) else {
        return;
    };
    let seen = observe(&lab, Host::A, PORT, address(Lab::SERVER, 5015));
    let answers = [
        (RouterPortMapping::Upnp, 5022, by_upnp(&lab)),
        (RouterPortMapping::NatPmp, 5020, by_nat_pmp(&lab)),
        (RouterPortMapping::Pcp, 5021, by_pcp(&lab)),
    ];
    for (protocol, inside, answer) in answers {
        assert_eq!(answer.is_ok(), protocol == has, "{protocol:?}: {answer:?}");
        if let Ok(port) = answer {
            let _listening = listen(&lab, Host::A, inside);
            let to = SocketAddr::new(seen.address.ip(), port);
            reach(&lab, Host::S, to).unwrap_or_else(|e| panic!("{to}: {e}"));
            lab.reboot(Host::A);
            let forgotten = reach(&lab, Host::S, to);
            assert_eq!(forgotten.expect_err("an error"), ErrorKind::TimedOut);
        }
    }
}

#[test]
fn a_router_with_upnp_opens_ports_by_it() {
    opens_ports_only_by(RouterPortMapping::Upnp);
}

#[test]
fn a_router_with_nat_pmp_opens_ports_by_it() {
    opens_ports_only_by(RouterPortMapping::NatPmp);
}

#[test]
fn a_router_with_pcp_opens_ports_by_it() {
    opens_ports_only_by(RouterPortMapping::Pcp);
}
