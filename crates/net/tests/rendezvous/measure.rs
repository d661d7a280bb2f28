//! Measuring for a diagnosis, without a NAT on the way.

use pinhole_net::diagnosis::{
    Diagnosis, Filtering, Mapping, NatLayers, PortMappingAnswer, ProbeAnswer, Probes, Reach, Tone,
};
use pinhole_net::{Connector, Examination, Expect, PathPolicy, PortMapper, ServerAddress};
use pinhole_proto::frame::{Decoder, FrameKind, encode};
use pinhole_proto::rendezvous::{ClientMessage, ServerMessage};
use pinhole_proto::tls::{ALPN_RENDEZVOUS, server_config};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::scene::{PATIENCE, Server, connect_config, identity};

async fn examine(server: ServerAddress, expect: Expect) -> Diagnosis {
    let port_mapper = PortMapper::default();
    port_mapper.switch_on();
    let examination = Examination {
        server,
        expect,
        identity: identity(),
        port_mapper: Some(port_mapper),
        proxy: None,
    };
    let diagnosis = timeout(PATIENCE, Box::pin(examination.run()));
    diagnosis.await.expect("no end of it")
}

#[tokio::test]
async fn nothing_is_in_the_way_on_one_machine_and_no_router_is_asked() {
    let server = Server::start();
    let diagnosis = examine(server.address.clone(), Expect::AnyKey).await;
    assert_eq!(diagnosis.mapping, Mapping::NoNat, "{diagnosis:#?}");
    assert_eq!(diagnosis.layers, NatLayers::None);
    assert_eq!(diagnosis.reach, Reach::Unknown, "the network was not seen");
    let measured = &diagnosis.measurements;
    assert_eq!(measured.port_mapping, PortMappingAnswer::NotAsked);
    let reached = matches!(
        measured.server_probes[0].answer,
        ProbeAnswer::Reached { .. }
    );
    assert!(reached, "{measured:#?}");
    assert!(measured.observations.iter().all(|o| o.local == o.seen));
    let one_address = Probes {
        other_port: Some(true),
        other_address: None,
    };
    assert_eq!(measured.probes, Some(one_address));
    assert_eq!(diagnosis.filtering, Filtering::AtMostAddressDependent);
}

// Elsewhere, loopback has one address.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_with_two_addresses_comes_back_from_both() {
    let server = Server::start_at(&["127.0.0.1:0", "127.0.0.2:0"]);
    let diagnosis = examine(server.address.clone(), Expect::AnyKey).await;
    assert_eq!(diagnosis.filtering, Filtering::EndpointIndependent);
}

/// A server that observes and answers the wish for probes with these words only,
/// or hangs up.
async fn that_sends_no_probes(answer: Option<ServerMessage>) -> ServerAddress {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = server_config(&identity(), Expect::AnyKey, ALPN_RENDEZVOUS).unwrap();
    let acceptor = TlsAcceptor::from(config);
    tokio::spawn(async move {
        while let Ok((tcp, address)) = listener.accept().await {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tokio::spawn(async move {
                let mut stream = acceptor.accept(tcp).await.unwrap();
                let mut decoder = Decoder::new(FrameKind::Client);
                let mut byte = [0];
                while let Ok(1..) = stream.read(&mut byte).await {
                    decoder.feed(&byte);
                    let answer = match decoder.next_message().unwrap() {
                        None => continue,
                        Some(ClientMessage::Observe) => Some(ServerMessage::Observed {
                            address,
                            other_address: None,
                            observer_ports: Vec::new(),
                        }),
                        Some(_) => answer.clone(),
                    };
                    let Some(answer) = answer else { break };
                    let frame = encode(FrameKind::Server, &answer).unwrap();
                    stream.write_all(&frame).await.unwrap();
                }
            });
        }
    });
    address.to_string().parse().unwrap()
}

#[tokio::test]
async fn what_the_server_says_of_its_probes_counts_only_if_they_come() {
    let said = ServerMessage::Probed {
        other_port: Some(true),
        other_address: Some(true),
    };
    let none_came = Probes {
        other_port: Some(false),
        other_address: Some(false),
    };
    let refused = ServerMessage::Probed {
        other_port: None,
        other_address: None,
    };
    let none_sent = Probes {
        other_port: None,
        other_address: None,
    };
    for (answer, probes, filtering) in [
        (
            Some(said),
            Some(none_came),
            Filtering::AddressAndPortDependent,
        ),
        (Some(refused), Some(none_sent), Filtering::Unknown),
        (Some(ServerMessage::RelayPaired), None, Filtering::Unknown),
        // As a server does that knows nothing of probes.
        (None, None, Filtering::Unknown),
    ] {
        let server = that_sends_no_probes(answer).await;
        let diagnosis = examine(server, Expect::AnyKey).await;
        assert_eq!(diagnosis.measurements.probes, probes);
        assert_eq!(diagnosis.filtering, filtering);
        assert_eq!(diagnosis.mapping, Mapping::NoNat);
    }
}

#[tokio::test]
async fn who_is_logged_in_stays_so() {
    let server = Server::start();
    let alice = identity();
    let log_in = server.log_in("alice", &alice);
    let (_connector, _, mut events) = Connector::log_in(log_in, connect_config(PathPolicy::Auto))
        .await
        .unwrap();
    let examination = Examination {
        server: server.address.clone(),
        expect: Expect::AnyKey,
        identity: alice,
        port_mapper: None,
        proxy: None,
    };
    let diagnosis = Box::pin(examination.run()).await;
    let answer = diagnosis.measurements.port_mapping;
    assert_eq!(answer, PortMappingAnswer::SwitchedOff);
    while let Ok(event) = events.try_recv() {
        let gone = matches!(event, pinhole_net::RendezvousEvent::Disconnected(_));
        assert!(!gone, "{event:?}");
    }
}

#[tokio::test]
async fn somebody_else_and_nobody_are_told_apart() {
    let server = Server::start();
    let other = identity().key().fingerprint();
    let impostor = server.unpinned().with_fingerprint(other);
    for (address, expect) in [
        (impostor, Expect::AnyKey),
        (server.unpinned(), Expect::Key(identity().key())),
    ] {
        let diagnosis = examine(address, expect).await;
        assert_eq!(diagnosis.reach, Reach::Nobody);
        let answer = &diagnosis.measurements.server_probes[0].answer;
        assert!(
            matches!(answer, ProbeAnswer::NotTheServer { .. }),
            "{answer:?}"
        );
    }
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = unused.local_addr().unwrap();
    drop(unused);
    let diagnosis = examine(address.to_string().parse().unwrap(), Expect::AnyKey).await;
    assert_eq!(diagnosis.reach, Reach::Nobody);
    assert_eq!(
        diagnosis.measurements.server_probes[0].answer,
        ProbeAnswer::Refused
    );
    assert_eq!(diagnosis.findings[0].tone, Tone::Trouble);
    let nowhere = "no-such-host.invalid:4747".parse().unwrap();
    let diagnosis = examine(nowhere, Expect::AnyKey).await;
    assert!(diagnosis.measurements.unresolved.is_some());
}
