//! Codes, and what people show each other to be let in.

use pinhole_net::{
    Accepted, CodeNumber, ConnectError, Credential, HostSharing, IntroductionFailure, PathPolicy,
    PeerIdentity, RefuseReason, RendezvousEvent,
};
use tokio::time::timeout;

use crate::scene::{Client, PATIENCE, Server, exchange};

fn credential(text: &str) -> Credential {
    text.parse().unwrap()
}

/// The next of the events that are about codes.
async fn code_event(client: &mut Client) -> RendezvousEvent {
    loop {
        match client.event().await {
            RendezvousEvent::Presence(_) => {}
            event => return event,
        }
    }
}

async fn found(client: &mut Client, number: CodeNumber) -> Option<PeerIdentity> {
    client.connector.rendezvous().find_code(number);
    match code_event(client).await {
        RendezvousEvent::CodeFound { number: of, peer } if of == number => peer,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_code_is_opened_found_and_closed() {
    let server = Server::start();
    let mut alice = Client::new(&server, "alice").await;
    let mut bob = Client::new(&server, "bob").await;
    assert!(alice.logged_in.codes);
    alice.connector.rendezvous().open_code();
    let event = code_event(&mut alice).await;
    let RendezvousEvent::Code {
        number: Some(number),
    } = event
    else {
        panic!("{event:?}");
    };
    let owner = PeerIdentity {
        name: alice.name(),
        key: alice.key,
    };
    assert_eq!(found(&mut bob, number).await, Some(owner));
    alice.connector.rendezvous().close_code();
    // The server has read that before it answers this.
    assert_eq!(found(&mut alice, number).await, None);
    assert_eq!(found(&mut bob, number).await, None);
}

/// As two people do who have nothing but a code: the first attempt only brings an answer.
#[tokio::test]
async fn a_credential_is_seen_before_the_invitation_is_answered_and_so_is_the_answer() {
    let server = Server::start();
    let alice = Client::new(&server, "alice").await;
    let mut bob = Client::new(&server, "bob").await;
    let connect = |shown| {
        let (name, key) = (bob.name(), bob.key);
        let connector = alice.connector.clone();
        async move {
            let shown = Some(credential(shown));
            let share = HostSharing::SameNetwork;
            connector.connect(name, key, share, shown).await
        }
    };
    let (first, second) = (connect("first"), connect("second"));
    let connector = bob.connector.clone();
    let bob = async move {
        let invitation = bob.invitation().await;
        assert_eq!(invitation.credential(), Some(&credential("first")));
        let rendezvous = connector.rendezvous();
        rendezvous
            .answer_credential(invitation, credential("answer"))
            .await;
        let invitation = bob.invitation().await;
        assert_eq!(invitation.credential(), Some(&credential("second")));
        let share = HostSharing::SameNetwork;
        let accepted = connector.accept(invitation, share, PathPolicy::Auto).await;
        match accepted.unwrap() {
            Accepted::Session(session) => session,
            Accepted::Migrated => panic!("there was none to move"),
        }
    };
    let alice = async {
        let error = first.await.unwrap_err();
        let ConnectError::Introduction {
            reason: IntroductionFailure::Credential,
            credential: answer,
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!(answer, Some(credential("answer")));
        second.await.unwrap()
    };
    let both = async { tokio::join!(alice, bob) };
    let (at_alice, at_bob) = timeout(PATIENCE, both).await.expect("neither yes nor no");
    exchange(at_alice, at_bob, 100_000).await;
}

#[tokio::test]
async fn an_invitation_that_is_over_is_told_as_such() {
    let server = Server::start();
    let alice = Client::new(&server, "alice").await;
    let mut bob = Client::new(&server, "bob").await;
    let (name, key) = (bob.name(), bob.key);
    let shown = Some(credential("proof"));
    let inviting = alice
        .connector
        .connect(name, key, HostSharing::SameNetwork, shown);
    let refusing = async {
        let invitation = bob.invitation().await;
        let reason = RefuseReason::InvitationOver;
        bob.connector.rendezvous().refuse(invitation, reason).await;
    };
    let both = async { tokio::join!(inviting, refusing) };
    let (error, ()) = timeout(PATIENCE, both).await.expect("an answer");
    let error = error.unwrap_err();
    let is_told = matches!(
        error,
        ConnectError::Introduction {
            reason: IntroductionFailure::InvitationOver,
            credential: None,
        }
    );
    assert!(is_told, "{error}");
}
