//! The kinds of router that a person may sit behind, by the usual short names:
//! mapping, filtering, port.

use super::plan::{NatFiltering, NatMapping, Order, Port, Router, Unsolicited};

use NatFiltering::EndpointIndependent as Eif;
use NatFiltering::{AddressAndPortDependent as Apdf, AddressDependent as Adf};
use NatMapping::EndpointIndependent as Eim;
use NatMapping::{AddressAndPortDependent as Apdm, AddressDependent as Adm};

/// Twelve kinds that differ in what they ask of a traversal.
pub const TYPES: [(&str, Router); 12] = [
    ("public", Router::PUBLIC),
    ("firewall", Router::FIREWALL),
    ("eim-eif", Router::of(Eim(Port::Random), Eif)),
    ("eim-adf", Router::of(Eim(Port::Random), Adf)),
    (
        "eim-apdf-preserving",
        Router::of(Eim(Port::Preserved), Apdf),
    ),
    ("eim-apdf-random", Router::HOME),
    ("eim-apdf-reset", answering(Unsolicited::Reset)),
    ("eim-apdf-icmp", answering(Unsolicited::Icmp)),
    ("adm-apdf", Router::of(Adm, Apdf)),
    ("apdm-eif", Router::of(Apdm(Order::Random), Eif)),
    (
        "apdm-apdf-sequential",
        Router::of(Apdm(Order::Sequential), Apdf),
    ),
    ("apdm-apdf-random", Router::SYMMETRIC),
];

const fn answering(unsolicited: Unsolicited) -> Router {
    let mut router = Router::of(Eim(Port::Preserved), Apdf);
    router.unsolicited = unsolicited;
    router
}
