//! The links that the registrar sends to.

use std::collections::BTreeMap;
use std::time::Instant;

use pinhole_proto::frame::{FrameKind, encode};
use pinhole_proto::node::NodeMessage;
use pinhole_proto::registry::Registry;
use pinhole_proto::rendezvous::NodeId;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::backlog::SharedFrame;
use crate::inbox::{NodeEvent, NodeLink};

/// The open link of each node.
#[derive(Debug)]
pub(crate) struct OpenLinks {
    links: BTreeMap<NodeId, (u64, mpsc::Sender<SharedFrame>)>,
    count: Gauge,
}

impl OpenLinks {
    pub(crate) const fn new(count: Gauge) -> Self {
        Self {
            links: BTreeMap::new(),
            count,
        }
    }

    pub(crate) fn handle(&mut self, registry: &mut Registry, link: NodeLink, event: NodeEvent) {
        let now = Instant::now();
        match event {
            NodeEvent::Linked { outgoing } => self.open(registry, link, outgoing),
            NodeEvent::Message(message) if self.is_open(link) => {
                registry.handle_node_message(now, link.node, *message);
            }
            NodeEvent::Unlinked if self.is_open(link) => {
                self.close(link.node);
                registry.handle_node_unlinked(now, link.node);
            }
            // Another link has taken its place.
            NodeEvent::Message(_) | NodeEvent::Unlinked => {}
        }
    }

    /// A link is up. It takes the place of an earlier one of the same node.
    fn open(
        &mut self,
        registry: &mut Registry,
        link: NodeLink,
        outgoing: mpsc::Sender<SharedFrame>,
    ) {
        let NodeLink { node, number } = link;
        let now = Instant::now();
        if self.links.insert(node, (number, outgoing)).is_some() {
            registry.handle_node_unlinked(now, node);
        }
        info!(?node, "linked to another node");
        registry.handle_node_linked(now, node);
        self.note_count();
    }

    fn is_open(&self, link: NodeLink) -> bool {
        let open = self.links.get(&link.node);
        open.is_some_and(|&(number, _)| number == link.number)
    }

    /// Ends the link of a node.
    pub(crate) fn close(&mut self, node: NodeId) {
        self.links.remove(&node);
        self.note_count();
    }

    pub(crate) fn send(&mut self, registry: &mut Registry, to: &[NodeId], message: &NodeMessage) {
        let frame: SharedFrame = match encode(FrameKind::Node, message) {
            Ok(frame) => frame.into(),
            Err(error) => return error!("a message to a node cannot be sent: {error}"),
        };
        for &node in to {
            let Some((_, outgoing)) = self.links.get(&node) else {
                continue;
            };
            if outgoing.try_send(SharedFrame::clone(&frame)).is_err() {
                warn!(?node, "does not read, or is gone");
                self.close(node);
                registry.handle_node_unlinked(Instant::now(), node);
            }
        }
    }

    fn note_count(&self) {
        self.count
            .set(i64::try_from(self.links.len()).unwrap_or(i64::MAX));
    }
}
