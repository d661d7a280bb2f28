//! Measuring for a diagnosis, without a NAT on the way.

use pinhole_net::diagnosis::{
    Diagnosis, KnockAnswer, Mapping, NatLayers, PortMappingAnswer, Reach, Tone,
};
use pinhole_net::{Examination, Expect, PathPolicy, PortMapper, Rendezvous, ServerAddress};
use tokio::time::timeout;

use crate::scene::{PATIENCE, Server, identity};

async fn examine(server: ServerAddress, expect: Expect) -> Diagnosis {
    let examination = Examination {
        server,
        expect,
        identity: identity(),
        port_mapper: Some(PortMapper::new(true)),
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
    assert_eq!(diagnosis.reach, Reach::Everybody);
    let measured = &diagnosis.measurements;
    assert_eq!(measured.port_mapping, PortMappingAnswer::NotAsked);
    let reached = matches!(measured.knocks[0].answer, KnockAnswer::Reached { .. });
    assert!(reached, "{measured:#?}");
    assert!(measured.observations.iter().all(|o| o.local == o.seen));
}

#[tokio::test]
async fn who_is_logged_in_stays_so() {
    let server = Server::start();
    let alice = identity();
    let log_in = server.log_in("alice", &alice, PathPolicy::Auto);
    let (_rendezvous, _, mut events) = Rendezvous::log_in(log_in).await.unwrap();
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
        let answer = &diagnosis.measurements.knocks[0].answer;
        assert!(
            matches!(answer, KnockAnswer::NotTheServer { .. }),
            "{answer:?}"
        );
    }
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = unused.local_addr().unwrap();
    drop(unused);
    let diagnosis = examine(address.to_string().parse().unwrap(), Expect::AnyKey).await;
    assert_eq!(diagnosis.reach, Reach::Nobody);
    assert_eq!(
        diagnosis.measurements.knocks[0].answer,
        KnockAnswer::Refused
    );
    assert_eq!(diagnosis.findings[0].tone, Tone::Trouble);
    let nowhere = "no-such-host.invalid:4747".parse().unwrap();
    let diagnosis = examine(nowhere, Expect::AnyKey).await;
    assert!(diagnosis.measurements.unresolved.is_some());
}
