//! TLS 1.3 with raw Ed25519 public keys (RFC 7250), mutually authenticated.
//!
//! Neither certificates nor names: a connection's other end *is* its key.
//! No tickets, no resumption, no early data, so nothing can be replayed.

use std::sync::Arc;

use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring as provider,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName,
    OtherError, ServerConfig, SignatureScheme,
};

use crate::key::{Fingerprint, PeerKey, Signature};

/// ALPN (RFC 7301) of every connection to a rendezvous server.
pub const ALPN_RENDEZVOUS: &[u8] = b"pinhole-rendezvous/1";
/// ALPN of the link between two nodes of one server.
pub const ALPN_NODE: &[u8] = b"pinhole-node/1";
/// ALPN of the session between two peers.
pub const ALPN_PEER: &[u8] = b"pinhole-peer/1";

/// `SubjectPublicKeyInfo` of an Ed25519 key (RFC 8410) up to the key itself.
const SPKI_PREFIX: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// An Ed25519 key pair, usable for TLS.
#[derive(Clone)]
pub struct Identity {
    key: PeerKey,
    pair: Arc<Ed25519KeyPair>,
    certified: Arc<CertifiedKey>,
}

/// Why a stored key pair cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 key in PKCS #8 form: {0}")]
pub struct IdentityError(String);

impl Identity {
    /// The key pair in a PKCS #8 v2 document (RFC 5958), as
    /// `ring::signature::Ed25519KeyPair::generate_pkcs8` makes it.
    ///
    /// # Errors
    /// When the document is anything else.
    pub fn from_pkcs8(document: &[u8]) -> Result<Self, IdentityError> {
        let pair =
            Ed25519KeyPair::from_pkcs8(document).map_err(|e| IdentityError(e.to_string()))?;
        let public = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| IdentityError("wrong key length".into()))?;
        let key = PeerKey::from_bytes(public);
        let private = PrivatePkcs8KeyDer::from(document.to_vec());
        let signer =
            provider::sign::any_eddsa_type(&private).map_err(|e| IdentityError(e.to_string()))?;
        let spki = CertificateDer::from(spki(&key));
        Ok(Self {
            key,
            pair: Arc::new(pair),
            certified: Arc::new(CertifiedKey::new(vec![spki], signer)),
        })
    }

    /// The public half.
    #[must_use]
    pub const fn key(&self) -> PeerKey {
        self.key
    }

    /// Signs a statement. Statements begin otherwise than what TLS 1.3 has signed, which
    /// begins with 64 spaces, so that neither can pass for the other.
    pub(crate) fn sign(&self, statement: &[u8]) -> Signature {
        signed_by(&self.pair, statement)
    }
}

/// A key pair's signature.
pub(crate) fn signed_by(pair: &Ed25519KeyPair, statement: &[u8]) -> Signature {
    let mut bytes = [0; 64];
    bytes.copy_from_slice(pair.sign(statement).as_ref());
    Signature::from_bytes(bytes)
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&self.key).finish()
    }
}

/// Which keys the other end of a connection may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Any; whoever calls looks at the key afterwards ([`proven_key`]).
    AnyKey,
    /// Exactly this one.
    Key(PeerKey),
    /// The one with this fingerprint.
    Fingerprint(Fingerprint),
}

impl Expect {
    fn admits(self, key: &PeerKey) -> bool {
        match self {
            Self::AnyKey => true,
            Self::Key(expected) => expected == *key,
            Self::Fingerprint(expected) => expected == key.fingerprint(),
        }
    }
}

/// The other end holds another key than the one expected.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the other end holds another key than the one expected")]
struct WrongKey {
    shown: PeerKey,
}

/// The key that was shown instead of the one expected, if that is why a handshake
/// failed. Nobody has proven to hold it.
#[must_use]
pub fn wrong_key(error: &std::io::Error) -> Option<PeerKey> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why))) => {
            let wrong: &WrongKey = why.downcast_ref()?;
            Some(wrong.shown)
        }
        _ => None,
    }
}

/// The configuration of the side that opens the TLS handshake.
///
/// # Errors
/// When the cryptography provider lacks TLS 1.3.
pub fn client_config(
    identity: &Identity,
    expect: Expect,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    client_config_with(Arc::new(crypto_provider()), identity, expect, alpn)
}

fn client_config_with(
    provider: Arc<CryptoProvider>,
    identity: &Identity,
    expect: Expect,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let verifier = Arc::new(RawKeyVerifier {
        expect,
        algorithms: provider.signature_verification_algorithms,
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
            identity.certified.clone(),
        )));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// The configuration of the side that answers the TLS handshake.
///
/// # Errors
/// When the cryptography provider lacks TLS 1.3.
pub fn server_config(
    identity: &Identity,
    expect: Expect,
    alpn: &[u8],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    server_config_with(Arc::new(crypto_provider()), identity, expect, alpn)
}

fn server_config_with(
    provider: Arc<CryptoProvider>,
    identity: &Identity,
    expect: Expect,
    alpn: &[u8],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let verifier = Arc::new(RawKeyVerifier {
        expect,
        algorithms: provider.signature_verification_algorithms,
    });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(
            identity.certified.clone(),
        )));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The name a client passes to rustls, which asks for one although no
/// certificate is compared with it; it is not sent.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into())
}

/// Why a finished handshake has proven nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// The other end has not agreed on the protocol: TLS leaves ALPN to it.
    #[error("the other end speaks no protocol of Pinhole")]
    Protocol,
    /// It has shown no Ed25519 key.
    #[error("the other end has shown no Ed25519 key")]
    Key,
}

/// The key with which the other end of a finished handshake has proven itself
/// for the protocol `alpn`.
///
/// # Errors
/// It has not agreed on this protocol, or has shown no key.
pub fn proven_key(connection: &CommonState, alpn: &[u8]) -> Result<PeerKey, Unproven> {
    if connection.alpn_protocol() != Some(alpn) {
        return Err(Unproven::Protocol);
    }
    let shown = connection.peer_certificates().and_then(<[_]>::first);
    shown
        .and_then(|spki| key_of_spki(spki))
        .ok_or(Unproven::Key)
}

fn spki(key: &PeerKey) -> Vec<u8> {
    [SPKI_PREFIX.as_slice(), key.as_bytes()].concat()
}

fn key_of_spki(spki: &[u8]) -> Option<PeerKey> {
    let key = spki.strip_prefix(&SPKI_PREFIX)?;
    PeerKey::checked(key.try_into().ok()?)
}

/// AES-128-GCM first: the fastest where AES instructions exist.
fn crypto_provider() -> CryptoProvider {
    #[cfg(target_arch = "x86_64")]
    if has_wide_aes() {
        return with_aws_lc();
    }
    with_ring()
}

fn with_ring() -> CryptoProvider {
    use provider::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..provider::default_provider()
    }
}

/// As [`with_ring`], with the ciphers of `aws-lc`.
#[cfg(target_arch = "x86_64")]
fn with_aws_lc() -> CryptoProvider {
    use rustls::crypto::aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..provider::default_provider()
    }
}

/// Whether `aws-lc` is the faster one: `ring` has no code for AVX-512, with which
/// `aws-lc` is about twice as fast as either is otherwise; without, `ring` is as
/// much faster.
#[cfg(target_arch = "x86_64")]
fn has_wide_aes() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
}

/// Checks that the other end holds the private half of an expected raw key.
#[derive(Debug)]
struct RawKeyVerifier {
    expect: Expect,
    algorithms: WebPkiSupportedAlgorithms,
}

impl RawKeyVerifier {
    fn admit(&self, spki: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let key = key_of_spki(spki).ok_or(CertificateError::BadEncoding)?;
        if self.expect.admits(&key) {
            Ok(())
        } else {
            let wrong = OtherError(Arc::new(WrongKey { shown: key }));
            Err(CertificateError::Other(wrong).into())
        }
    }

    fn verify(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)
    }
}

const TLS12_UNUSED: rustls::Error =
    rustls::Error::PeerIncompatible(rustls::PeerIncompatible::NoCipherSuitesInCommon);

/// What both verifier traits ask for in the same words.
macro_rules! raw_key_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(TLS12_UNUSED)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.verify(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for RawKeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.admit(end_entity)
            .map(|()| ServerCertVerified::assertion())
    }

    raw_key_signatures!();
}

impl ClientCertVerifier for RawKeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.admit(end_entity)
            .map(|()| ClientCertVerified::assertion())
    }

    raw_key_signatures!();
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use ring::rand::SystemRandom;
    use ring::signature::{ED25519, UnparsedPublicKey};
    use rustls::sign::{Signer, SigningKey};
    use rustls::{ClientConnection, ServerConnection, SignatureAlgorithm};

    use super::*;

    fn identity() -> Identity {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Identity::from_pkcs8(document.as_ref()).unwrap()
    }

    /// Shuttles handshake bytes until both sides are done or one fails.
    fn handshake(
        client: Arc<ClientConfig>,
        server: Arc<ServerConfig>,
    ) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
        let mut client = ClientConnection::new(client, server_name())?;
        let mut server = ServerConnection::new(server)?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            let mut incoming = wire.as_slice();
            while !incoming.is_empty() {
                server.read_tls(&mut incoming).unwrap();
                server.process_new_packets()?;
            }
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut incoming = wire.as_slice();
            while !incoming.is_empty() {
                client.read_tls(&mut incoming).unwrap();
                client.process_new_packets()?;
            }
        }
        Ok((client, server))
    }

    #[test]
    fn both_sides_learn_the_other_key() {
        let (alice, bob) = (identity(), identity());
        let (mut client, mut server) = handshake(
            client_config(&alice, Expect::Key(bob.key()), ALPN_PEER).unwrap(),
            server_config(&bob, Expect::Key(alice.key()), ALPN_PEER).unwrap(),
        )
        .unwrap();
        assert_eq!(proven_key(&client, ALPN_PEER), Ok(bob.key()));
        assert_eq!(proven_key(&server, ALPN_PEER), Ok(alice.key()));
        client.writer().write_all(b"hello").unwrap();
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        let mut plain = [0; 5];
        server.reader().read_exact(&mut plain).unwrap();
        assert_eq!(&plain, b"hello");
    }

    /// Whichever library each end chose for its processor.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn each_library_opens_what_the_other_has_sealed() {
        let libraries = [with_ring, with_aws_lc];
        for (by_client, by_server) in [(0, 1), (1, 0)] {
            for suite in 0..with_ring().cipher_suites.len() {
                let only = |library: fn() -> CryptoProvider| {
                    let all = library();
                    let cipher_suites = vec![all.cipher_suites[suite]];
                    Arc::new(CryptoProvider {
                        cipher_suites,
                        ..all
                    })
                };
                let (alice, bob) = (identity(), identity());
                let client = client_config_with(
                    only(libraries[by_client]),
                    &alice,
                    Expect::Key(bob.key()),
                    ALPN_PEER,
                );
                let server = server_config_with(
                    only(libraries[by_server]),
                    &bob,
                    Expect::Key(alice.key()),
                    ALPN_PEER,
                );
                let (mut client, mut server) = handshake(client.unwrap(), server.unwrap()).unwrap();
                for round in 0..3 {
                    let sent = vec![round; 40_000];
                    client.writer().write_all(&sent).unwrap();
                    let mut wire = Vec::new();
                    while client.wants_write() {
                        client.write_tls(&mut wire).unwrap();
                    }
                    let mut incoming = wire.as_slice();
                    let mut received = Vec::new();
                    while !incoming.is_empty() {
                        server.read_tls(&mut incoming).unwrap();
                        server.process_new_packets().unwrap();
                        let mut plain = [0; 20_000];
                        while let Ok(count @ 1..) = server.reader().read(&mut plain) {
                            received.extend_from_slice(&plain[..count]);
                        }
                    }
                    assert!(received == sent);
                }
            }
        }
    }

    #[test]
    fn an_unexpected_key_ends_the_handshake_on_either_side() {
        let (alice, bob, mallory) = (identity(), identity(), identity());
        let any = |who: &Identity| server_config(who, Expect::AnyKey, ALPN_PEER).unwrap();
        let wrong_server = client_config(&alice, Expect::Key(bob.key()), ALPN_PEER).unwrap();
        assert!(handshake(wrong_server, any(&mallory)).is_err());
        let wrong_print = client_config(
            &alice,
            Expect::Fingerprint(bob.key().fingerprint()),
            ALPN_PEER,
        )
        .unwrap();
        assert!(handshake(wrong_print, any(&mallory)).is_err());
        let right_print = client_config(
            &alice,
            Expect::Fingerprint(bob.key().fingerprint()),
            ALPN_PEER,
        )
        .unwrap();
        assert!(handshake(right_print, any(&bob)).is_ok());
        let wrong_client = server_config(&bob, Expect::Key(alice.key()), ALPN_PEER).unwrap();
        assert!(
            handshake(
                client_config(&mallory, Expect::AnyKey, ALPN_PEER).unwrap(),
                wrong_client
            )
            .is_err()
        );
    }

    #[test]
    fn another_protocol_is_refused() {
        let (alice, bob) = (identity(), identity());
        let client = client_config(&alice, Expect::AnyKey, ALPN_PEER).unwrap();
        let server = server_config(&bob, Expect::AnyKey, ALPN_RENDEZVOUS).unwrap();
        assert!(handshake(client, server).is_err());
    }

    #[test]
    fn who_leaves_the_protocol_out_has_proven_nothing() {
        let (alice, bob) = (identity(), identity());
        let client = client_config(&alice, Expect::AnyKey, ALPN_PEER).unwrap();
        let server = server_config(&bob, Expect::AnyKey, ALPN_PEER).unwrap();
        let mut silent_client = ClientConfig::clone(&client);
        silent_client.alpn_protocols.clear();
        let (client_end, server_end) = handshake(silent_client.into(), server.clone()).unwrap();
        assert_eq!(proven_key(&server_end, ALPN_PEER), Err(Unproven::Protocol));
        assert_eq!(proven_key(&client_end, ALPN_PEER), Err(Unproven::Protocol));
        let mut silent_server = ServerConfig::clone(&server);
        silent_server.alpn_protocols.clear();
        let (client_end, _) = handshake(client.clone(), silent_server.into()).unwrap();
        assert_eq!(proven_key(&client_end, ALPN_PEER), Err(Unproven::Protocol));
        let (client_end, server_end) = handshake(client, server).unwrap();
        assert!(proven_key(&client_end, ALPN_RENDEZVOUS).is_err());
        assert!(proven_key(&server_end, ALPN_RENDEZVOUS).is_err());
    }

    /// Signs without a private key: under the neutral element as the key, `R` the
    /// neutral element and `S` zero are a signature of every message.
    #[derive(Debug)]
    struct Nobody;

    impl Nobody {
        const KEY: [u8; 32] = {
            let mut key = [0; 32];
            key[0] = 1;
            key
        };

        fn identity() -> Identity {
            let key = PeerKey::from_bytes(Self::KEY);
            let spki = CertificateDer::from(spki(&key));
            let certified = CertifiedKey::new(vec![spki], Arc::new(Self));
            // Any will do: TLS signs with `certified`.
            let pair = Ed25519KeyPair::from_seed_unchecked(&[0; 32]).unwrap();
            Identity {
                key,
                pair: Arc::new(pair),
                certified: Arc::new(certified),
            }
        }
    }

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
            Ok([Self::KEY, [0; 32]].concat())
        }

        fn scheme(&self) -> SignatureScheme {
            SignatureScheme::ED25519
        }
    }

    #[test]
    fn nobody_gets_in_with_a_key_that_needs_no_private_half() {
        let message = b"whatever";
        let forged = Nobody.sign(message).unwrap();
        UnparsedPublicKey::new(&ED25519, Nobody::KEY)
            .verify(message, &forged)
            .expect("the library lets it pass, so that the verifier has to look");
        let (alice, nobody) = (identity(), Nobody::identity());
        for expect in [Expect::AnyKey, Expect::Key(nobody.key())] {
            for alpn in [ALPN_PEER, ALPN_RENDEZVOUS] {
                let ours = server_config(&alice, expect, alpn).unwrap();
                let theirs = client_config(&nobody, Expect::AnyKey, alpn).unwrap();
                handshake(theirs, ours).unwrap_err();
                let ours = client_config(&alice, expect, alpn).unwrap();
                let theirs = server_config(&nobody, Expect::AnyKey, alpn).unwrap();
                handshake(ours, theirs).unwrap_err();
            }
        }
    }
}
