//! What has changed from one snapshot to the next. Lists can be long, and a transfer that
//! moves changes ten times a second.

use std::collections::BTreeMap;
use std::sync::Arc;

use pinhole_net::PeerIdentity;
use serde::{Deserialize, Serialize};

use crate::model::TransferId;
use crate::offer;
use crate::snapshot::{OfferView, PeerView, Snapshot, TransferView};
use crate::store::{Attempt, FaceKind, HistoryEntry};

/// What makes the next snapshot of the one before.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Update {
    /// All but the lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    rest: Option<Arc<Snapshot>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peers: Option<Splice<PeerView>>,
    /// Without their offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    transfers: Option<Splice<TransferView>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    offers: Vec<(TransferId, Arc<OfferView>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contacts: Option<Splice<PeerIdentity>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Splice<HistoryEntry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Splice<Attempt>>,
}

/// A piece of a list and what takes its place.
#[derive(Debug, Serialize, Deserialize)]
struct Splice<T> {
    at: usize,
    gone: usize,
    new: Vec<T>,
}

impl<T: Clone + PartialEq> Splice<T> {
    /// `None` when nothing has changed.
    fn between(old: &[T], new: &[T]) -> Option<Self> {
        let at = old.iter().zip(new).take_while(|(a, b)| a == b).count();
        let (old, new) = (old.get(at..)?, new.get(at..)?);
        let behind = old.iter().rev().zip(new.iter().rev());
        let same = behind.take_while(|(a, b)| a == b).count();
        let gone = old.len() - same;
        let new = new.get(..new.len() - same)?.to_vec();
        (gone > 0 || !new.is_empty()).then_some(Self { at, gone, new })
    }

    /// The same for lists that are shared while nothing changes.
    fn between_shared(old: &Arc<Vec<T>>, new: &Arc<Vec<T>>) -> Option<Self> {
        match Arc::ptr_eq(old, new) {
            true => None,
            false => Self::between(old, new),
        }
    }

    /// Returns what has gone; `None` for a splice of another list.
    fn apply(self, list: &mut Vec<T>) -> Option<Vec<T>> {
        let end = self.at.checked_add(self.gone)?;
        list.get(self.at..end)?;
        Some(list.splice(self.at..end, self.new).collect())
    }
}

/// What a face was told last.
pub(super) struct Told {
    face: FaceKind,
    snapshot: Option<Arc<Snapshot>>,
    /// What all but the lists looked like, because moments in it are relative.
    rest: String,
}

impl Told {
    pub(super) const fn nothing(face: FaceKind) -> Self {
        Self {
            face,
            snapshot: None,
            rest: String::new(),
        }
    }

    /// What a face has to be told so that it has this snapshot; `None` if nothing.
    pub(super) fn update(&mut self, next: &Arc<Snapshot>) -> Option<Update> {
        let rest = serde_json::to_string(&**next).unwrap_or_default();
        let is_same = std::mem::replace(&mut self.rest, rest) == self.rest;
        let told = self.snapshot.replace(next.clone());
        let told = told.as_deref();
        let empty = Arc::default();
        let no_attempts = Arc::default();
        let no_contacts = Arc::default();
        let peers = told.map(|it| it.peers.as_slice()).unwrap_or_default();
        let transfers = told.map(|it| it.transfers.as_slice()).unwrap_or_default();
        let update = Update {
            rest: (!is_same).then(|| next.clone()),
            peers: Splice::between(peers, &next.peers),
            transfers: Splice::between(transfers, &next.transfers),
            offers: self.offers(transfers, &next.transfers),
            contacts: Splice::between_shared(
                told.map_or(&no_contacts, |it| &it.contacts),
                &next.contacts,
            ),
            history: Splice::between_shared(told.map_or(&empty, |it| &it.history), &next.history),
            attempts: Splice::between_shared(
                told.map_or(&no_attempts, |it| &it.attempts),
                &next.attempts,
            ),
        };
        (!update.is_empty()).then_some(update)
    }

    /// The offers that have changed. Only a face that asks its user about them needs to
    /// know each of their files.
    fn offers(
        &self,
        old: &[TransferView],
        new: &[TransferView],
    ) -> Vec<(TransferId, Arc<OfferView>)> {
        let old: BTreeMap<_, _> = old.iter().map(|it| (it.id, &it.offer)).collect();
        let is_told = |it: &&TransferView| {
            let known = old.get(&it.id);
            known.is_some_and(|known| Arc::ptr_eq(known, &it.offer))
        };
        let changed = new.iter().filter(|it| !is_told(it));
        let shown = |it: &TransferView| match self.face {
            FaceKind::Command => Arc::new(offer::in_short(&it.offer)),
            FaceKind::Receive | FaceKind::Window => it.offer.clone(),
        };
        changed.map(|it| (it.id, shown(it))).collect()
    }
}

impl Update {
    const fn is_empty(&self) -> bool {
        self.rest.is_none()
            && self.peers.is_none()
            && self.transfers.is_none()
            && self.offers.is_empty()
            && self.contacts.is_none()
            && self.history.is_none()
            && self.attempts.is_none()
    }

    /// The next snapshot; `None` when this is not made for the one before.
    pub(super) fn apply(self, before: Option<Arc<Snapshot>>) -> Option<Snapshot> {
        let mut lists = before.map(Arc::unwrap_or_clone);
        let rest = self.rest.map(Arc::unwrap_or_clone);
        let mut next = match (rest, lists.take()) {
            (Some(rest), Some(before)) => Snapshot {
                peers: before.peers,
                transfers: before.transfers,
                contacts: before.contacts,
                history: before.history,
                attempts: before.attempts,
                ..rest
            },
            (Some(rest), None) => rest,
            (None, Some(before)) => before,
            (None, None) => return None,
        };
        splice(self.peers, &mut next.peers)?;
        splice_shared(self.contacts, &mut next.contacts)?;
        splice_shared(self.history, &mut next.history)?;
        splice_shared(self.attempts, &mut next.attempts)?;
        let gone = splice(self.transfers, &mut next.transfers)?;
        let known = gone.into_iter().map(|it| (it.id, it.offer));
        let offers: BTreeMap<_, _> = known.chain(self.offers).collect();
        for transfer in &mut next.transfers {
            if let Some(offer) = offers.get(&transfer.id) {
                transfer.offer = offer.clone();
            }
        }
        Some(next)
    }
}

fn splice<T: Clone + PartialEq>(change: Option<Splice<T>>, list: &mut Vec<T>) -> Option<Vec<T>> {
    match change {
        Some(change) => change.apply(list),
        None => Some(Vec::new()),
    }
}

/// The same; a list that does not change stays shared.
fn splice_shared<T: Clone + PartialEq>(
    change: Option<Splice<T>>,
    list: &mut Arc<Vec<T>>,
) -> Option<()> {
    match change {
        Some(change) => change.apply(Arc::make_mut(list)).map(drop),
        None => Some(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Direction, FaceId, Progress, Stage};
    use crate::snapshot::EntryView;
    use crate::store::Settings;

    fn peer(n: u8) -> PeerIdentity {
        PeerIdentity {
            name: format!("peer-{n}").parse().unwrap(),
            key: pinhole_net::PeerKey::from_bytes([n; 32]),
        }
    }

    fn transfer(id: u64, bytes_done: u64, offer: &Arc<OfferView>) -> TransferView {
        TransferView {
            id: TransferId(id),
            face: FaceId::OWN,
            peer: peer(1),
            claimed: false,
            stranger: false,
            direction: Direction::Receiving,
            offer: offer.clone(),
            stage: Stage::Transferring,
            path: None,
            progress: Progress {
                bytes_done,
                ..Progress::default()
            },
            is_text: false,
            text: None,
        }
    }

    fn snapshot(contacts: &[u8], transfers: Vec<TransferView>) -> Arc<Snapshot> {
        let key = peer(9).key;
        Arc::new(Snapshot {
            login: crate::snapshot::LoginState::LoggedOut { failure: None },
            nearby: None,
            fingerprint: key.fingerprint(),
            key,
            directory: None,
            peers: Vec::new(),
            looked_up: Vec::new(),
            code: None,
            transfers,
            asking: Vec::new(),
            contacts: Arc::new(contacts.iter().copied().map(peer).collect()),
            blocked: Vec::new(),
            history: Arc::default(),
            attempts: Arc::default(),
            is_first_run: false,
            has_recovery_key: false,
            is_diagnosing: false,
            diagnosis: None,
            download_folder: "downloads".into(),
            settings: Settings::default(),
        })
    }

    fn large() -> Arc<OfferView> {
        let entry = |n: u32| EntryView {
            path: format!("file {n}"),
            size_bytes: Some(1),
            stream: false,
            folder: None,
        };
        Arc::new(OfferView {
            title: "1,000 files".to_owned(),
            entries: (0..1_000).map(entry).collect(),
            ..OfferView::default()
        })
    }

    /// What an attached face makes of what it is told.
    fn follow(face: FaceKind, all: &[Arc<Snapshot>]) -> Vec<(Option<usize>, Snapshot)> {
        let mut told = Told::nothing(face);
        let mut known: Option<Arc<Snapshot>> = None;
        let follow = |next: &Arc<Snapshot>| {
            let update = told.update(next);
            let json = update.map(|update| serde_json::to_string(&update).unwrap());
            if let Some(json) = &json {
                let update: Update = serde_json::from_str(json).unwrap();
                known = Some(Arc::new(update.apply(known.take()).unwrap()));
            }
            let snapshot = Snapshot::clone(known.as_ref().unwrap());
            (json.map(|json| json.len()), snapshot)
        };
        all.iter().map(follow).collect()
    }

    #[test]
    fn a_face_that_is_told_what_has_changed_has_the_same_snapshot() {
        let (one, other) = (large(), large());
        let all = [
            snapshot(&[1, 2, 4], vec![]),
            snapshot(&[1, 2, 4], vec![transfer(1, 0, &one)]),
            snapshot(&[1, 2, 4], vec![transfer(1, 5, &one)]),
            snapshot(
                &[1, 2, 3, 4],
                vec![transfer(1, 5, &one), transfer(2, 0, &other)],
            ),
            snapshot(&[2, 3], vec![transfer(2, 7, &other)]),
            snapshot(&[], vec![]),
        ];
        let followed = follow(FaceKind::Window, &all);
        for (expected, (_, followed)) in all.iter().zip(&followed) {
            assert_eq!(followed.contacts, expected.contacts);
            assert_eq!(followed.transfers, expected.transfers);
        }
    }

    #[test]
    fn nothing_is_told_twice() {
        let (offer, contacts) = (large(), [1, 2, 3]);
        let all = [
            snapshot(&contacts, vec![transfer(1, 0, &offer)]),
            snapshot(&contacts, vec![transfer(1, 0, &offer)]),
            snapshot(&contacts, vec![transfer(1, 1_000, &offer)]),
        ];
        let bytes: Vec<_> = follow(FaceKind::Window, &all)
            .into_iter()
            .map(|(bytes, _)| bytes)
            .collect();
        assert!(bytes[0].unwrap() > 30_000, "{bytes:?}");
        assert_eq!(bytes[1], None);
        assert!(bytes[2].unwrap() < 1_000, "{bytes:?}");
    }

    #[test]
    fn a_command_is_not_told_each_file_of_an_offer() {
        let all = [snapshot(&[], vec![transfer(1, 0, &large())])];
        let [(bytes, followed)] = &follow(FaceKind::Command, &all)[..] else {
            panic!("one snapshot");
        };
        assert!(bytes.unwrap() < 3_000, "{bytes:?}");
        let offer = &followed.transfers[0].offer;
        assert_eq!((&*offer.title, offer.entries.len()), ("1,000 files", 0));
    }

    #[test]
    fn a_large_profile_is_told_once_and_then_what_changes_of_it() {
        const PEOPLE: u32 = 5_000;
        const TRANSFERS: u64 = 9_999;
        let person = |n: u32| {
            let mut key = [7; 32];
            key[..4].copy_from_slice(&n.to_be_bytes());
            PeerIdentity {
                name: format!("person-{n:05}").parse().unwrap(),
                key: pinhole_net::PeerKey::from_bytes(key),
            }
        };
        let view = |n: u32| PeerView {
            identity: person(n),
            online: true,
            nearby: false,
            claimed: false,
            contact: true,
            changed_from: None,
            released: false,
            revoked: false,
            path: None,
        };
        let entry = |n: u64| HistoryEntry {
            ended_at_s: n,
            peer: person(1),
            direction: Direction::Receiving,
            title: "a title of the usual length.mp4".to_owned(),
            files: 1,
            bytes: n,
            here_bytes: 0,
            path: None,
            elapsed_ms: Some(n),
            digest: Some("0".repeat(64)),
            outcome: crate::store::Outcome::Completed { failed_files: 0 },
            folder: Some("/home/somebody/Downloads/Pinhole".into()),
        };
        let mut first = Snapshot::clone(&snapshot(&[], vec![]));
        first.peers = (0..PEOPLE).map(view).collect();
        first.contacts = Arc::new((0..PEOPLE).map(person).collect());
        first.history = Arc::new((0..TRANSFERS).map(entry).collect());
        let mut next = first.clone();
        next.peers[2_500].online = false;
        Arc::make_mut(&mut next.history).push(entry(TRANSFERS));
        let followed = follow(
            FaceKind::Command,
            &[Arc::new(first), Arc::new(next.clone())],
        );
        let bytes: Vec<_> = followed.iter().map(|(bytes, _)| bytes.unwrap()).collect();
        println!("{bytes:?} bytes");
        assert!(bytes[0] < 8 << 20 && bytes[1] < 2_000, "{bytes:?}");
        let (_, last) = followed.last().unwrap();
        assert_eq!((&last.peers, &last.history), (&next.peers, &next.history));
    }

    #[test]
    fn a_change_of_another_list_is_no_change() {
        for (at, gone) in [(0, 4), (4, 0), (usize::MAX, 1), (1, usize::MAX)] {
            let change = Splice {
                at,
                gone,
                new: vec![0],
            };
            assert!(change.apply(&mut vec![1, 2, 3]).is_none(), "{at} {gone}");
        }
        assert!(Update::default().apply(None).is_none());
    }
}
