//! Codes, and the credentials that people who use them show each other.

use pinhole_proto::credential::CodeNumber;
use pinhole_proto::frame::{FrameKind, encode};
use pinhole_proto::rendezvous::{
    ClientMessage, IntroductionFailure, PeerIdentity, RefuseReason, ServerMessage,
};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::Server;
use super::client::{Client, identity, introduction, relay_only};

/// Opens a code, and returns its number.
pub(crate) async fn opened(client: &mut Client) -> CodeNumber {
    client.say(&ClientMessage::OpenCode).await;
    match client.hear().await {
        ServerMessage::Code {
            number: Some(number),
        } => number,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn found(client: &mut Client, number: CodeNumber) -> Option<PeerIdentity> {
    client.say(&ClientMessage::FindCode { number }).await;
    match client.hear().await {
        ServerMessage::CodeFound { number: of, peer } if of == number => peer,
        other => panic!("{other:?}"),
    }
}

/// The first asks for an introduction to the second, whose name is bob; both show each
/// other a credential.
pub(crate) async fn show_each_other_credentials(from: &mut Client, to: &mut Client) {
    let introduce = ClientMessage::Introduce {
        introduction: introduction(9),
        round: 1,
        peer: "bob".parse().unwrap(),
        reachability: relay_only(),
        credential: Some("question".parse().unwrap()),
    };
    from.say(&introduce).await;
    let ServerMessage::Invitation { credential, .. } = to.hear().await else {
        panic!("not invited");
    };
    assert_eq!(credential, "question".parse().ok());
    let refuse = ClientMessage::Refuse {
        introduction: introduction(9),
        reason: RefuseReason::Credential,
        credential: Some("answer".parse().unwrap()),
    };
    to.say(&refuse).await;
    let failed = ServerMessage::IntroductionFailed {
        introduction: introduction(9),
        reason: IntroductionFailure::Credential,
        credential: Some("answer".parse().unwrap()),
    };
    assert_eq!(from.hear().await, failed);
}

#[tokio::test]
async fn a_code_leads_to_its_owner_and_ends_with_its_connection() {
    let server = Server::default();
    let alice = identity();
    let mut a = Client::log_in(server.address(), &alice, "alice").await;
    let mut b = Client::log_in(server.address(), &identity(), "bob").await;
    let number = opened(&mut a).await;
    let owner = PeerIdentity {
        name: "alice".parse().unwrap(),
        key: alice.key(),
    };
    assert_eq!(found(&mut b, number).await, Some(owner));
    show_each_other_credentials(&mut a, &mut b).await;
    // The newer login ends the older, and what is said on it comes after that.
    let mut again = Client::log_in(server.address(), &alice, "alice").await;
    assert_eq!(found(&mut b, number).await, None);
    again.say(&ClientMessage::CloseCode).await;
    opened(&mut again).await;
    server.stop().await;
}

#[tokio::test]
async fn hostile_words_about_codes_end_the_connection_and_nothing_else() {
    let server = Server::default();
    let mut bob = Client::log_in(server.address(), &identity(), "bob").await;
    let number = opened(&mut bob).await;
    let find = |number: Value| json!({"type": "find_code", "number": number});
    let introduce = |credential: Value| {
        json!({
            "type": "introduce",
            "introduction": introduction(1),
            "round": 1,
            "peer": "bob",
            "reachability": relay_only(),
            "credential": credential,
        })
    };
    let mut hostile = vec![
        vec![json!({"type": "open_code"}), json!({"type": "open_code"})],
        vec![find(json!(0))],
        vec![find(json!(1000))],
        vec![find(json!(-1))],
        vec![find(json!("7"))],
        vec![find(json!(7)); 13],
    ];
    let credentials = [
        json!("x".repeat(257)),
        json!(""),
        json!("padded=="),
        json!("a b"),
        json!("\u{0}"),
        json!(7),
        json!(["a"]),
    ];
    hostile.extend(credentials.map(|it| vec![introduce(it)]));
    for (count, words) in hostile.iter().enumerate() {
        let name = format!("eve{count}");
        let mut eve = Client::log_in(server.address(), &identity(), &name).await;
        for word in words {
            let frame = encode(FrameKind::Client, word).unwrap();
            // It may have hung up before the last of them.
            let _ = eve.stream.write_all(&frame).await;
        }
        let _ = eve.stream.flush().await;
        let is_answer = |it: &ServerMessage| {
            matches!(
                it,
                ServerMessage::Code { .. } | ServerMessage::CodeFound { .. }
            )
        };
        while let Some(message) = eve.hear_or_end().await {
            assert!(is_answer(&message), "{words:?}: {message:?}");
        }
    }
    let mut alice = Client::log_in(server.address(), &identity(), "alice").await;
    let peer = found(&mut alice, number).await;
    assert_eq!(peer.map(|it| it.key), Some(bob.key));
    server.stop().await;
}
