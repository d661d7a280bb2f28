//! Two exchanges and what the tests ask of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pinhole_transfer::{
    AcceptOptions, Destination, EntryIndex, Exchange, ExchangeEvent, FileError, Manifest, Owner,
    PeerOwner, Resources, ResumeState, SafePath, Side, Source, Summary, TransferError, TransferId,
};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// Nothing in these tests takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The keys of the two.
pub(crate) const ALICE: [u8; 32] = [1; 32];
pub(crate) const BOB: [u8; 32] = [2; 32];

/// One side of an exchange.
pub(crate) struct Peer {
    pub(crate) exchange: Exchange,
    pub(crate) events: mpsc::Receiver<ExchangeEvent>,
    /// Files that failed so far.
    pub(crate) failed: Vec<(SafePath, FileError)>,
}

impl Peer {
    pub(crate) fn over<S>(stream: S, side: Side) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        Self::limited(stream, side, Resources::default())
    }

    pub(crate) fn limited<S>(stream: S, side: Side, resources: Resources) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let key = match side {
            Side::Initiator => BOB,
            Side::Responder => ALICE,
        };
        Self::with(stream, side, Owner::stranger(key), resources)
    }

    /// Over a stream to this peer.
    pub(crate) fn with<S>(stream: S, side: Side, owner: PeerOwner, resources: Resources) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let stream = tokio::io::split(stream);
        let (exchange, events) = pinhole_transfer::start(stream, side, owner, resources);
        Self {
            exchange,
            events,
            failed: Vec::new(),
        }
    }

    pub(crate) async fn event(&mut self) -> ExchangeEvent {
        self.event_in(PATIENCE).await
    }

    async fn event_in(&mut self, patience: Duration) -> ExchangeEvent {
        let event = tokio::time::timeout(patience, self.events.recv()).await;
        event
            .expect("an event in time")
            .expect("an event before the end")
    }

    #[allow(clippy::unused_async, reason = "a step of a test like the others")]
    pub(crate) async fn send(&self, paths: &[PathBuf]) -> TransferId {
        self.exchange.send(Source::scan(paths).unwrap()).unwrap()
    }

    pub(crate) async fn send_again(&self, paths: &[PathBuf]) -> TransferId {
        self.send_resumable(paths, &begun(paths).await).await
    }

    #[allow(clippy::unused_async, reason = "a step of a test like the others")]
    pub(crate) async fn send_resumable(
        &self,
        paths: &[PathBuf],
        resume: &ResumeState,
    ) -> TransferId {
        let source = Source::scan(paths).unwrap();
        let sent = self.exchange.send_resumable(source, resume);
        sent.unwrap()
    }

    pub(crate) async fn offered(&mut self) -> (TransferId, Arc<Manifest>) {
        match self.event().await {
            ExchangeEvent::Offered { id, offer, .. } => (id, offer),
            other => panic!("{other:?} instead of an offer"),
        }
    }

    pub(crate) async fn accept(&self, id: TransferId, into: &Path) {
        self.accept_some(id, into, AcceptOptions::default()).await;
    }

    pub(crate) async fn accept_some(&self, id: TransferId, into: &Path, choices: AcceptOptions) {
        self.exchange
            .accept(id, Destination::open(into).unwrap(), choices)
            .await
            .unwrap();
    }

    /// As an attempt at what was accepted before.
    pub(crate) async fn accept_again(
        &self,
        id: TransferId,
        into: &Path,
        choices: AcceptOptions,
        resume: &ResumeState,
    ) {
        let destination = Destination::open(into).unwrap();
        let prepared = self.exchange.prepare(id, destination, choices, resume);
        prepared.await.unwrap().begin().unwrap();
    }

    pub(crate) async fn accept_next(&mut self, into: &Path) -> TransferId {
        let (id, _) = self.offered().await;
        self.accept(id, into).await;
        id
    }

    /// How the transfer ends, noting failed files on the way.
    pub(crate) async fn finished(&mut self, of: TransferId) -> Result<Summary, TransferError> {
        self.finished_in(of, PATIENCE).await
    }

    pub(crate) async fn finished_in(
        &mut self,
        of: TransferId,
        patience: Duration,
    ) -> Result<Summary, TransferError> {
        loop {
            match self.event_in(patience).await {
                ExchangeEvent::Finished { id, outcome } if id == of => return outcome,
                ExchangeEvent::FileFailed { path, error, .. } => self.failed.push((path, error)),
                ExchangeEvent::Closed { reason } => panic!("closed: {reason:?}"),
                _ => {}
            }
        }
    }

    /// How the exchange ends.
    pub(crate) async fn closed(&mut self) -> Option<pinhole_transfer::ExchangeError> {
        loop {
            if let ExchangeEvent::Closed { reason } = self.event().await {
                return reason;
            }
        }
    }
}

/// What is remembered of a transfer that has begun on another connection.
async fn begun(paths: &[PathBuf]) -> ResumeState {
    let (alice, _bob) = pair();
    let resume = ResumeState::default();
    alice.send_resumable(paths, &resume).await;
    resume
}

/// Everything but these.
pub(crate) fn without(unwanted: &[u32]) -> AcceptOptions {
    AcceptOptions {
        unwanted: unwanted.iter().copied().map(EntryIndex::new).collect(),
        ..AcceptOptions::default()
    }
}

/// Alice and bob over a stream in memory.
pub(crate) fn pair() -> (Peer, Peer) {
    let (left, right): (DuplexStream, DuplexStream) = tokio::io::duplex(256 * 1024);
    (
        Peer::over(left, Side::Initiator),
        Peer::over(right, Side::Responder),
    )
}

/// Sends `paths` from alice to bob and returns both summaries.
pub(crate) async fn transfer(
    alice: &mut Peer,
    bob: &mut Peer,
    paths: &[PathBuf],
    into: &Path,
) -> (Summary, Summary) {
    let id = alice.send(paths).await;
    carried(alice, bob, id, into).await
}

/// Sends again what was under way before.
pub(crate) async fn transfer_again(
    alice: &mut Peer,
    bob: &mut Peer,
    paths: &[PathBuf],
    into: &Path,
) -> (Summary, Summary) {
    let id = alice.send_again(paths).await;
    carried(alice, bob, id, into).await
}

async fn carried(
    alice: &mut Peer,
    bob: &mut Peer,
    id: TransferId,
    into: &Path,
) -> (Summary, Summary) {
    bob.accept_next(into).await;
    let received = bob.finished(id).await.unwrap();
    let sent = alice.finished(id).await.unwrap();
    assert_eq!(sent.digest, received.digest);
    (sent, received)
}

/// Everything below a folder: path, content (none for a folder), time.
pub(crate) type Tree = BTreeMap<PathBuf, (Option<Vec<u8>>, SystemTime)>;

pub(crate) fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    collect(root, root, &mut found);
    found
}

fn collect(root: &Path, dir: &Path, found: &mut Tree) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = metadata.is_file().then(|| fs::read(&path).unwrap());
        let relative = path.strip_prefix(root).unwrap().to_owned();
        found.insert(relative, (content, metadata.modified().unwrap()));
        if metadata.is_dir() {
            collect(root, &path, found);
        }
    }
}

/// The names below a folder, without what is in them.
pub(crate) fn names(root: &Path) -> Vec<String> {
    tree(root)
        .into_keys()
        .map(|path| path.to_str().unwrap().to_owned())
        .collect()
}

/// Bytes that differ everywhere and from seed to seed.
pub(crate) fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend(state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}
