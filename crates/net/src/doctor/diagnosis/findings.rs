//! The diagnosis in words for people.

use std::net::IpAddr;

use super::{
    Diagnosis, Filtering, Finding, Ipv6, Mapping, NatLayers, PortMappingAnswer, ProbeAnswer, Reach,
    RouterOutside, ServerProbe, Tone,
};
use pinhole_proto::candidate::is_global;

/// The port that networks which forbid all others let through.
const HTTPS: u16 = 443;

pub(super) fn findings(diagnosis: &Diagnosis) -> Vec<Finding> {
    let mut findings = vec![reach(diagnosis)];
    findings.extend(server(diagnosis));
    if diagnosis.reach != Reach::Nobody && !diagnosis.measurements.is_server_here() {
        findings.extend(address(diagnosis));
        findings.extend(mapping(diagnosis));
        findings.extend(filtering(diagnosis));
        findings.extend(layers(diagnosis));
        findings.extend(port_mapping(diagnosis));
        findings.push(ipv6(diagnosis));
    }
    findings.extend(proxy(diagnosis));
    findings
}

fn finding(tone: Tone, topic: &str, text: impl Into<String>) -> Finding {
    Finding {
        tone,
        topic: topic.to_owned(),
        text: text.into(),
        advice: None,
    }
}

impl Finding {
    fn advise(self, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..self
        }
    }
}

fn reach(diagnosis: &Diagnosis) -> Finding {
    if diagnosis.measurements.is_server_here() {
        let text = "The server is on this computer: connections to it do not leave it, and tell \
                    nothing of the network.";
        let found = finding(Tone::Neutral, "What works", text);
        return found.advise("Measure with a server on another network.");
    }
    let (tone, text) = match diagnosis.reach {
        Reach::Nobody if diagnosis.measurements.proxy.is_some() => (
            Tone::Trouble,
            "The server cannot be reached without the HTTP proxy. Whether the proxy leads to it \
             was not measured: it shows when you log in.",
        ),
        Reach::Nobody => (
            Tone::Trouble,
            "Nothing works at the moment, because the server cannot be reached.",
        ),
        Reach::Everybody => (
            Tone::Good,
            "Transfers will go directly with practically everybody.",
        ),
        Reach::Most => (
            Tone::Good,
            "Transfers will go directly with people on open networks, behind routers that open \
             ports, and behind NATs that keep their ports, which most homes have. With people \
             behind NATs that change their ports, as many mobile and company networks do, they \
             may go through the relay, encrypted and slower.",
        ),
        Reach::Some => (
            Tone::Neutral,
            "Transfers will go directly with people on open networks and behind routers that \
             open ports, and mostly with people behind NATs that keep their ports. With all \
             others they go through the relay, encrypted and slower.",
        ),
        Reach::Few => (
            Tone::Neutral,
            "Transfers will go directly only with people on open networks or behind routers \
             that open ports. With all others they go through the relay, encrypted and slower.",
        ),
        Reach::Unknown => (
            Tone::Neutral,
            "Whether transfers will go directly cannot be told. Otherwise they go through the \
             relay, encrypted and slower.",
        ),
    };
    let also = match (diagnosis.reach, diagnosis.ipv6) {
        (Reach::Nobody, _) => "",
        (Reach::Everybody, _) => " On one network they always do.",
        (_, Ipv6::Works) => " On one network, and with people who have IPv6 too, they go directly.",
        _ => " On one network they go directly.",
    };
    let found = finding(tone, "What works", format!("{text}{also}"));
    let could_be_better = matches!(diagnosis.reach, Reach::Some | Reach::Few);
    match diagnosis.measurements.port_mapping {
        PortMappingAnswer::NotGranted if could_be_better => found.advise(
            "Switch on UPnP, NAT-PMP or PCP in your router (its settings may call it port \
             mapping): then others can reach you directly.",
        ),
        PortMappingAnswer::SwitchedOff if could_be_better => found
            .advise("Let Pinhole ask the router for ports: it is switched off in its settings."),
        _ => found,
    }
}

fn server(diagnosis: &Diagnosis) -> Vec<Finding> {
    const TOPIC: &str = "Server";
    let measured = &diagnosis.measurements;
    let name = &measured.server;
    if let Some(reason) = &measured.unresolved {
        let text = format!("The name in {name} has no address ({reason}).");
        let found = finding(Tone::Trouble, TOPIC, text);
        return vec![found.advise("Check how it is spelled, and that this computer is online.")];
    }
    let (reached, others): (Vec<&ServerProbe>, Vec<&ServerProbe>) = measured
        .server_probes
        .iter()
        .partition(|probe| probe.is_reached());
    let asked = measured
        .server_probes
        .first()
        .map(|probe| probe.address.port());
    let is_reached_as_asked = reached.iter().any(|k| Some(k.address.port()) == asked);
    // Where the server need not be, its absence is worth a word only when it is
    // nowhere else.
    let others: Vec<&ServerProbe> = others
        .into_iter()
        .filter(|k| !is_reached_as_asked || k.address.port() != HTTPS)
        .collect();
    let mut findings = Vec::new();
    if !reached.is_empty() {
        let places: Vec<String> = reached.iter().map(|probe| told(probe)).collect();
        let text = format!("Reached: {}.", places.join(", "));
        findings.push(finding(Tone::Good, TOPIC, text));
    }
    if !others.is_empty() {
        let places: Vec<String> = others.iter().map(|probe| told(probe)).collect();
        let text = format!("Not reached: {}.", places.join(", "));
        let tone = if reached.is_empty() {
            Tone::Trouble
        } else {
            Tone::Neutral
        };
        let mut found = finding(tone, TOPIC, text);
        found.advice = blocked(asked, &reached, &others);
        findings.push(found);
    }
    findings
}

fn told(probe: &ServerProbe) -> String {
    let address = probe.address;
    match &probe.answer {
        ProbeAnswer::Reached { connect_ms } => format!("{address} ({connect_ms} ms)"),
        ProbeAnswer::NotTheServer { reason } => {
            format!("{address} (not the server: {reason})")
        }
        ProbeAnswer::Refused => format!("{address} (refused: nothing listens there)"),
        ProbeAnswer::Silent => format!("{address} (no answer)"),
        ProbeAnswer::Forbidden => {
            format!("{address} (forbidden by this computer's firewall)")
        }
        ProbeAnswer::Failed { reason } => format!("{address} ({reason})"),
    }
}

/// What to do about ports of the server that were not reached.
fn blocked(
    asked: Option<u16>,
    reached: &[&ServerProbe],
    others: &[&ServerProbe],
) -> Option<String> {
    let at = |port| reached.iter().find(|k| Some(k.address.port()) == port);
    if let (None, Some(https)) = (at(asked), at(Some(HTTPS))) {
        return Some(format!(
            "This network lets only some ports through. Use {} as the server's address.",
            https.address
        ));
    }
    if !reached.is_empty() {
        // The second port need not be in use, and HTTPS rarely is.
        return None;
    }
    let any = |answer: fn(&ProbeAnswer) -> bool| others.iter().any(|k| answer(&k.answer));
    let is_there = |k: &&ServerProbe| k.address.port() == HTTPS && k.is_answered();
    let is_dropped = |k: &&ServerProbe| Some(k.address.port()) == asked && !k.is_answered();
    Some(
        if others.iter().any(is_there) && others.iter().any(is_dropped) {
            "The machine answers at port 443 and not at the server's port: a firewall on the way \
             lets only some ports through. Ask whoever runs the server to have it listen at 443, \
             or try from another network."
        } else if any(|a| matches!(a, ProbeAnswer::Forbidden)) {
            "A firewall on this computer forbids it: allow Pinhole to connect."
        } else if any(|a| matches!(a, ProbeAnswer::NotTheServer { .. })) {
            "Somebody else answers: check the address and the fingerprint. Networks that ask for \
             a login on a web page do this, too."
        } else if any(|a| matches!(a, ProbeAnswer::Refused)) {
            "The machine is there, but the server does not run on it, or on other ports: check \
             the port, or ask whoever runs it."
        } else {
            "Either the server is down, or a firewall on the way drops the connection: try from \
             another network."
        }
        .to_owned(),
    )
}

fn address(diagnosis: &Diagnosis) -> Option<Finding> {
    let seen: Vec<String> = diagnosis.public.iter().map(ToString::to_string).collect();
    let of_v4 = diagnosis.public.iter().filter(|ip| ip.is_ipv4()).count();
    let mut text = format!("The server sees you at {}.", seen.join(" and "));
    if of_v4 > 1 {
        text += " Several addresses of IPv4 at a time: your provider shares them among its \
                 customers.";
    }
    (!seen.is_empty()).then(|| finding(Tone::Neutral, "Address", text))
}

fn mapping(diagnosis: &Diagnosis) -> Option<Finding> {
    let (tone, text) = match diagnosis.mapping {
        Mapping::NoNat => (
            Tone::Good,
            "None: your computer has a public address of its own.".to_owned(),
        ),
        Mapping::Stable {
            preserves_port,
            addresses_compared,
        } => {
            let same = if preserves_port {
                " The public port is the local one."
            } else {
                ""
            };
            let how_sure = if addresses_compared {
                " It is the same for every destination (endpoint-independent mapping)."
            } else {
                " It was compared for two ports of the server's one address, so that a NAT that \
                 goes by addresses alone would not have shown."
            };
            let text = format!("It keeps one public port for each local port.{same}{how_sure}");
            (Tone::Good, text)
        }
        Mapping::AddressDependent => (
            Tone::Trouble,
            "It takes another public port for each address (address-dependent mapping), so that \
             others cannot know which one they will meet."
                .to_owned(),
        ),
        Mapping::PortDependent { step: Some(step) } => (
            Tone::Neutral,
            format!(
                "It takes another public port for each destination (address- and port-dependent \
                 mapping, \"symmetric\"), but in order, in steps of {step}: it can be foreseen."
            ),
        ),
        Mapping::PortDependent { step: None } => (
            Tone::Trouble,
            "It takes another public port at random for each destination (address- and \
             port-dependent mapping, \"symmetric\"), so that others cannot know which one they \
             will meet."
                .to_owned(),
        ),
        Mapping::Unknown if diagnosis.public.iter().any(IpAddr::is_ipv4) => (
            Tone::Neutral,
            "What it does with ports could not be measured: that takes two ports of the server, \
             and one answers."
                .to_owned(),
        ),
        Mapping::Unknown => return None,
    };
    if tone == Tone::Trouble && diagnosis.has_useful_mapping() {
        let text = format!("{text} The port that the router opens makes up for it.");
        return Some(finding(Tone::Neutral, "NAT", text));
    }
    Some(finding(tone, "NAT", text))
}

fn filtering(diagnosis: &Diagnosis) -> Option<Finding> {
    const TOPIC: &str = "Filtering";
    if !diagnosis.public.iter().any(IpAddr::is_ipv4) {
        return None;
    }
    let has_nat = diagnosis.mapping != Mapping::NoNat;
    Some(match diagnosis.filtering {
        Filtering::EndpointIndependent if has_nat => finding(
            Tone::Good,
            TOPIC,
            "Your router lets anybody in who knows the port (endpoint-independent filtering), so \
             that people reach you whatever their own router does.",
        ),
        Filtering::EndpointIndependent => finding(
            Tone::Good,
            TOPIC,
            "None: no firewall keeps anybody out who knows your address and port \
             (endpoint-independent filtering).",
        ),
        Filtering::AddressDependent => finding(
            Tone::Good,
            TOPIC,
            "Only those get in whom you have connected to, but from any of their ports \
             (address-dependent filtering): also people whose ports change, if they can know \
             yours.",
        ),
        Filtering::AtMostAddressDependent => finding(
            Tone::Good,
            TOPIC,
            "Whom you have connected to gets in from any port (endpoint-independent or \
             address-dependent filtering). Which of the two cannot be told, because the server \
             has one address.",
        ),
        Filtering::AddressAndPortDependent if has_nat => finding(
            Tone::Neutral,
            TOPIC,
            "Your router, or a firewall, lets only those in whom you have connected to, and only \
             from the very port that you have connected to (address- and port-dependent \
             filtering). Pinhole has both sides connect at the same moment, which is enough \
             unless the other side's ports change.",
        ),
        Filtering::AddressAndPortDependent => finding(
            Tone::Neutral,
            TOPIC,
            "A firewall lets only those in whom you have connected to, and only from the very \
             port that you have connected to (address- and port-dependent filtering).",
        )
        .advise("If it is the firewall of this computer, let Pinhole accept connections."),
        Filtering::Unknown => finding(
            Tone::Neutral,
            TOPIC,
            "Who gets in from outside was not measured: the server did not connect back. It may \
             be an older one, or have been asked too often; then try again in a minute.",
        ),
    })
}

fn layers(diagnosis: &Diagnosis) -> Option<Finding> {
    const TOPIC: &str = "NATs on the way";
    match diagnosis.layers {
        NatLayers::None | NatLayers::Unknown => None,
        NatLayers::One => Some(finding(
            Tone::Good,
            TOPIC,
            "One: your router's outside is the address that the server sees.",
        )),
        NatLayers::AtLeastOne => {
            let text = "At least one. Whether there are more cannot be told from what your \
                        router says of its own outside.";
            Some(finding(Tone::Neutral, TOPIC, text))
        }
        NatLayers::AtLeastTwo => {
            let outside = match diagnosis.measurements.router_outside {
                RouterOutside::Address(ip) => format!("own outside, {ip}, is"),
                RouterOutside::Unusable | RouterOutside::Unsaid => "outside is".to_owned(),
            };
            let text = format!("At least two: your router's {outside} not a public address.");
            let advice = "If there is a second router of yours, set one of them to bridge mode. \
                          If it is your provider's (carrier-grade NAT), ask for a public IPv4 \
                          address, or for IPv6.";
            Some(finding(Tone::Trouble, TOPIC, text).advise(advice))
        }
    }
}

fn port_mapping(diagnosis: &Diagnosis) -> Option<Finding> {
    const TOPIC: &str = "Port mapping";
    match diagnosis.measurements.port_mapping {
        PortMappingAnswer::SwitchedOff => Some(finding(
            Tone::Neutral,
            TOPIC,
            "Switched off: the router is not asked to open ports.",
        )),
        PortMappingAnswer::NotAsked => None,
        PortMappingAnswer::NotGranted if diagnosis.mapping == Mapping::NoNat => None,
        PortMappingAnswer::NotGranted => Some(finding(
            Tone::Neutral,
            TOPIC,
            "Your router opens no ports on request (asked by PCP, NAT-PMP and UPnP).",
        )),
        PortMappingAnswer::Granted(grant) => {
            let (protocol, external) = (grant.protocol, grant.external);
            if diagnosis.has_useful_mapping() {
                let text = format!("Your router opens ports by {protocol}: {external}.");
                return Some(finding(Tone::Good, TOPIC, text));
            }
            let why = if is_global(external.ip()) {
                "the server sees you at another"
            } else {
                "which nobody outside can reach"
            };
            let text = format!("Your router opens ports by {protocol}, but at {external}, {why}.");
            Some(finding(Tone::Trouble, TOPIC, text))
        }
    }
}

fn ipv6(diagnosis: &Diagnosis) -> Finding {
    const TOPIC: &str = "IPv6";
    match diagnosis.ipv6 {
        Ipv6::Works => finding(Tone::Good, TOPIC, "Works."),
        Ipv6::NotTried => finding(
            Tone::Neutral,
            TOPIC,
            "There is an address; the server has none to try it with.",
        ),
        Ipv6::Broken => finding(
            Tone::Trouble,
            TOPIC,
            "There is an address, but the server was not reached by it.",
        ),
        Ipv6::Absent => finding(
            Tone::Neutral,
            TOPIC,
            "This computer has no public IPv6 address.",
        ),
    }
}

fn proxy(diagnosis: &Diagnosis) -> Option<Finding> {
    let proxy = diagnosis.measurements.proxy.as_ref()?;
    let text = format!("The server is reached through an HTTP proxy: {proxy}.");
    Some(finding(Tone::Neutral, "Proxy", text))
}
