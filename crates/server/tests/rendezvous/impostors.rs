//! Clients that pass a TLS handshake and have proven nothing.

use std::sync::Arc;

use pinhole_proto::frame::{FrameKind, encode};
use pinhole_proto::rendezvous::ClientMessage;
use pinhole_proto::tls::{ALPN_RENDEZVOUS, Expect, client_config, server_name};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{ClientConfig, SignatureAlgorithm, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::client::{Client, identity};
use super::{PATIENCE, Server};

/// As our client's, but with what `change` makes of it.
fn config(change: impl FnOnce(&mut ClientConfig)) -> Arc<ClientConfig> {
    let ours = client_config(&identity(), Expect::AnyKey, ALPN_RENDEZVOUS).unwrap();
    let mut config = ClientConfig::clone(&ours);
    change(&mut config);
    Arc::new(config)
}

/// Whether the server answers the first message of a client like this.
async fn is_served(server: &Server, config: Arc<ClientConfig>) -> bool {
    let tcp = TcpStream::connect(server.address()).await.unwrap();
    let connecting = TlsConnector::from(config).connect(server_name(), tcp);
    // In TLS 1.3 the client is done before the server has seen its key.
    let Ok(mut stream) = timeout(PATIENCE, connecting).await.unwrap() else {
        return false;
    };
    let observe = encode(FrameKind::Client, &ClientMessage::Observe).unwrap();
    if stream.write_all(&observe).await.is_err() || stream.flush().await.is_err() {
        return false;
    }
    let mut answer = [0; 1];
    let read = timeout(PATIENCE, stream.read(&mut answer)).await;
    matches!(read.expect("the server says nothing"), Ok(1))
}

#[tokio::test]
async fn a_client_that_names_no_protocol_is_not_served() {
    let server = Server::default();
    assert!(is_served(&server, config(|_| ())).await);
    let silent = config(|config| config.alpn_protocols.clear());
    assert!(!is_served(&server, silent).await);
    server.stop().await;
}

/// The neutral element of the curve: as a key, it lets everybody sign.
const WEAK_KEY: [u8; 32] = {
    let mut key = [0; 32];
    key[0] = 1;
    key
};

/// Signs every message alike, without a private key.
#[derive(Debug)]
struct Nobody;

impl SigningKey for Nobody {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Self))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Nobody {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok([WEAK_KEY, [0; 32]].concat())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

#[tokio::test]
async fn a_key_that_everybody_can_sign_with_does_not_log_in() {
    const SPKI_PREFIX: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
    let server = Server::default();
    let spki = [SPKI_PREFIX.as_slice(), &WEAK_KEY].concat();
    let nobody = CertifiedKey::new(vec![spki.into()], Arc::new(Nobody));
    let weak = config(|config| {
        let resolver = AlwaysResolvesClientRawPublicKeys::new(Arc::new(nobody));
        config.client_auth_cert_resolver = Arc::new(resolver);
    });
    assert!(!is_served(&server, weak).await);
    // Nobody else is kept out by it.
    Client::log_in(server.address(), &identity(), "alice").await;
    server.stop().await;
}
