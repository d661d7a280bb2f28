use super::*;

const SERVER: &str = "203.0.113.1";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn reached(text: &str) -> ServerProbe {
    let answer = ProbeAnswer::Reached { connect_ms: 50 };
    ServerProbe {
        address: address(text),
        answer,
    }
}

fn not_reached(text: &str, answer: ProbeAnswer) -> ServerProbe {
    ServerProbe {
        address: address(text),
        answer,
    }
}

/// What each of the two ports of each server saw of each local port.
fn seen_at(servers: &[&str], seen: &[(u16, &[u16])]) -> Vec<Observation> {
    let mut observations = Vec::new();
    for &(local, public) in seen {
        let ports = [4747, 4748];
        let sides = servers.iter().flat_map(|ip| ports.map(|port| (*ip, port)));
        for ((ip, port), public) in sides.zip(public) {
            observations.push(Observation {
                local: (([192, 168, 1, 10]), local).into(),
                server: address(&format!("{ip}:{port}")),
                seen: ([198, 51, 100, 7], *public).into(),
            });
        }
    }
    observations
}

fn measured(observations: Vec<Observation>) -> Measurements {
    Measurements {
        server: format!("{SERVER}:4747"),
        unresolved: None,
        server_probes: vec![reached("203.0.113.1:4747"), reached("203.0.113.1:4748")],
        observations,
        probes: None,
        own: vec!["192.168.1.10".parse().unwrap()],
        port_mapping: PortMappingAnswer::NotGranted,
        router_outside: RouterOutside::Unsaid,
        proxy: None,
    }
}

fn granted(external: &str) -> PortMappingAnswer {
    PortMappingAnswer::Granted(Grant {
        protocol: MappingProtocol::Pcp,
        external: address(external),
    })
}

fn words(diagnosis: &Diagnosis) -> String {
    let line = |f: &Finding| {
        format!(
            "{}: {} {}",
            f.topic,
            f.text,
            f.advice.as_deref().unwrap_or("")
        )
    };
    diagnosis
        .findings
        .iter()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
}

/// What follows from what the ports of these servers saw.
#[track_caller]
fn assert_concluded(servers: &[&str], seen: &[(u16, &[u16])], mapping: Mapping, reach: Reach) {
    let diagnosis = Diagnosis::of(measured(seen_at(servers, seen)));
    let concluded = (diagnosis.mapping, diagnosis.reach);
    assert_eq!(concluded, (mapping, reach), "{seen:?}");
}

#[test]
fn a_mapping_is_stable_as_far_as_it_was_compared() {
    let stable = |preserves_port, addresses_compared| Mapping::Stable {
        preserves_port,
        addresses_compared,
    };
    let one = &[SERVER][..];
    let two = &[SERVER, "203.0.113.2"][..];
    let preserved: &[(u16, &[u16])] = &[(4000, &[4000, 4000]), (4001, &[4001, 4001])];
    assert_concluded(one, preserved, stable(true, false), Reach::Most);
    let other: &[(u16, &[u16])] = &[(4000, &[9000, 9000]), (4001, &[777, 777])];
    assert_concluded(one, other, stable(false, false), Reach::Most);
    let compared: &[(u16, &[u16])] = &[(4000, &[9000, 9000, 9000, 9000])];
    assert_concluded(two, compared, stable(false, true), Reach::Most);
    let dependent: &[(u16, &[u16])] = &[(4000, &[9000, 9000, 31000, 31000])];
    assert_concluded(two, dependent, Mapping::AddressDependent, Reach::Few);
    // Only one side answered, or none.
    assert_concluded(one, &[(4000, &[9000])], Mapping::Unknown, Reach::Unknown);
    assert_concluded(one, &[], Mapping::Unknown, Reach::Unknown);
}

#[test]
fn ports_in_order_are_told_from_ports_at_random() {
    let one = &[SERVER][..];
    let dependent = |step| Mapping::PortDependent { step };
    let random: &[(u16, &[u16])] = &[
        (4000, &[9000, 31000]),
        (4001, &[60000, 1500]),
        (4002, &[22222, 45000]),
    ];
    assert_concluded(one, random, dependent(None), Reach::Few);
    // In whatever order the connections came up.
    let by_one: &[(u16, &[u16])] = &[
        (4000, &[9001, 9000]),
        (4001, &[9003, 9005]),
        (4002, &[9002, 9004]),
    ];
    assert_concluded(one, by_one, dependent(Some(1)), Reach::Some);
    // With others taking ports in between.
    let by_two: &[(u16, &[u16])] = &[
        (4000, &[9000, 9002]),
        (4001, &[9004, 9040]),
        (4002, &[9042, 9044]),
    ];
    assert_concluded(one, by_two, dependent(Some(2)), Reach::Some);
    // Two ports alone make no sequence.
    assert_concluded(one, &[(4000, &[9000, 9001])], dependent(None), Reach::Few);
}

#[test]
fn who_has_a_public_address_has_no_nat() {
    let own = address("198.51.100.7:4000");
    let observation = |port| Observation {
        local: own,
        server: address(&format!("{SERVER}:{port}")),
        seen: own,
    };
    let measurements = measured(vec![observation(4747), observation(4748)]);
    let diagnosis = Diagnosis::of(measurements);
    assert_eq!(diagnosis.mapping, Mapping::NoNat);
    assert_eq!(diagnosis.layers, NatLayers::None);
    assert_eq!(diagnosis.reach, Reach::Everybody);
    let words = words(&diagnosis);
    assert!(
        words.contains("Who gets in from outside was not measured"),
        "{words}"
    );
}

#[test]
fn what_the_router_says_tells_the_layers_and_what_it_is_worth() {
    let symmetric = seen_at(&[SERVER], &[(4000, &[9000, 31000]), (4001, &[60000, 1500])]);
    for (answer, layers, reach, said) in [
        (
            granted("198.51.100.7:4000"),
            NatLayers::One,
            Reach::Everybody,
            "makes up for it",
        ),
        // The provider's shared range, RFC 6598, and a second router.
        (
            granted("100.64.3.4:4000"),
            NatLayers::AtLeastTwo,
            Reach::Few,
            "carrier-grade",
        ),
        (
            granted("192.168.0.2:4000"),
            NatLayers::AtLeastTwo,
            Reach::Few,
            "bridge mode",
        ),
        (
            granted("198.51.100.8:4000"),
            NatLayers::AtLeastOne,
            Reach::Few,
            "the server sees you at another",
        ),
        (
            PortMappingAnswer::NotGranted,
            NatLayers::AtLeastOne,
            Reach::Few,
            "Switch on UPnP",
        ),
        (
            PortMappingAnswer::SwitchedOff,
            NatLayers::AtLeastOne,
            Reach::Few,
            "switched off in its settings",
        ),
    ] {
        let router_outside = match answer {
            PortMappingAnswer::Granted(grant) => RouterOutside::Address(grant.external.ip()),
            _ => RouterOutside::Unsaid,
        };
        let diagnosis = Diagnosis::of(Measurements {
            port_mapping: answer,
            router_outside,
            ..measured(symmetric.clone())
        });
        assert_eq!(
            (diagnosis.layers, diagnosis.reach),
            (layers, reach),
            "{answer:?}"
        );
        let words = words(&diagnosis);
        assert!(words.contains(said), "{words}");
    }
}

#[test]
fn a_router_that_grants_nothing_may_still_tell_of_a_second_nat() {
    let stable = seen_at(&[SERVER], &[(4000, &[9000, 9000])]);
    let at = |ip: &str| RouterOutside::Address(ip.parse().unwrap());
    for (outside, layers) in [
        (RouterOutside::Unusable, NatLayers::AtLeastTwo),
        (at("100.64.0.9"), NatLayers::AtLeastTwo),
        (at("198.51.100.7"), NatLayers::One),
        (RouterOutside::Unsaid, NatLayers::AtLeastOne),
    ] {
        let diagnosis = Diagnosis::of(Measurements {
            router_outside: outside,
            ..measured(stable.clone())
        });
        assert_eq!(diagnosis.layers, layers);
        assert_eq!(diagnosis.reach, Reach::Most);
    }
}

#[test]
fn an_unreached_server_is_explained() {
    let forbidden = ProbeAnswer::Forbidden;
    let not_the_server = ProbeAnswer::NotTheServer {
        reason: "no TLS".into(),
    };
    for (answer, said) in [
        (
            ProbeAnswer::Silent,
            "the server is down, or a firewall on the way",
        ),
        (ProbeAnswer::Refused, "does not run on it"),
        (forbidden, "A firewall on this computer"),
        (not_the_server, "check the address and the fingerprint"),
    ] {
        let diagnosis = Diagnosis::of(Measurements {
            server_probes: vec![not_reached("203.0.113.1:4747", answer.clone())],
            ..measured(Vec::new())
        });
        assert_eq!(diagnosis.reach, Reach::Nobody);
        let words = words(&diagnosis);
        assert!(words.contains(said), "{answer:?}: {words}");
        assert!(!words.contains("NAT"), "{words}");
    }
    let diagnosis = Diagnosis::of(Measurements {
        unresolved: Some("no such host".into()),
        server_probes: Vec::new(),
        ..measured(Vec::new())
    });
    assert_eq!(diagnosis.reach, Reach::Nobody);
    assert!(words(&diagnosis).contains("Check how it is spelled"));
}

#[test]
fn a_network_that_lets_only_https_through_is_recognised() {
    let silent = |text| not_reached(text, ProbeAnswer::Silent);
    let server_probes = vec![
        silent("203.0.113.1:4747"),
        silent("203.0.113.1:4748"),
        reached("203.0.113.1:443"),
    ];
    let diagnosis = Diagnosis::of(Measurements {
        server_probes,
        ..measured(seen_at(&[SERVER], &[(4000, &[9000])]))
    });
    let text = words(&diagnosis);
    assert!(text.contains("Use 203.0.113.1:443"), "{text}");
    let server_probes = vec![
        silent("203.0.113.1:4747"),
        not_reached("203.0.113.1:443", ProbeAnswer::Refused),
    ];
    let diagnosis = Diagnosis::of(Measurements {
        server_probes,
        ..measured(Vec::new())
    });
    let text = words(&diagnosis);
    assert!(text.contains("listen at 443"), "{text}");
    // A second port that is not in use is no trouble by itself.
    let server_probes = vec![
        reached("203.0.113.1:4747"),
        not_reached("203.0.113.1:4748", ProbeAnswer::Refused),
        silent("203.0.113.1:443"),
    ];
    let diagnosis = Diagnosis::of(Measurements {
        server_probes,
        ..measured(seen_at(&[SERVER], &[(4000, &[9000])]))
    });
    assert!(!words(&diagnosis).contains("443"));
    let trouble = |f: &&Finding| f.tone == Tone::Trouble || f.advice.is_some();
    assert_eq!(diagnosis.findings.iter().find(trouble), None);
}

#[test]
fn ipv6_is_what_was_tried_of_it() {
    let v6 = "2001:db8::5".parse::<IpAddr>().unwrap();
    let local_only = "fd00::5".parse::<IpAddr>().unwrap();
    let at_server = |answer| not_reached("[2001:db8:5::1]:4747", answer);
    let works = at_server(ProbeAnswer::Reached { connect_ms: 9 });
    for (own, probe, ipv6) in [
        (vec![v6], Some(works), Ipv6::Works),
        (vec![v6], Some(at_server(ProbeAnswer::Silent)), Ipv6::Broken),
        (vec![v6], None, Ipv6::NotTried),
        (
            vec![local_only],
            Some(at_server(ProbeAnswer::Silent)),
            Ipv6::Absent,
        ),
        (vec![], None, Ipv6::Absent),
    ] {
        let mut measurements = measured(Vec::new());
        measurements.own = own;
        measurements.server_probes.extend(probe);
        assert_eq!(Diagnosis::of(measurements).ipv6, ipv6);
    }
}

#[test]
fn a_proxy_and_several_public_addresses_are_told() {
    let mut measurements = measured(seen_at(&[SERVER], &[(4000, &[4000, 4000])]));
    measurements.observations[1].seen = address("198.51.100.8:4000");
    measurements.proxy = Some("http://proxy.example:3128".into());
    let unreached = Measurements {
        server_probes: vec![not_reached("203.0.113.1:4747", ProbeAnswer::Silent)],
        ..measurements.clone()
    };
    let said = words(&Diagnosis::of(unreached));
    assert!(said.contains("without the HTTP proxy"), "{said}");
    let words = words(&Diagnosis::of(measurements));
    assert!(words.contains("198.51.100.7 and 198.51.100.8"), "{words}");
    assert!(words.contains("your provider shares them"), "{words}");
    assert!(
        words.contains("through an HTTP proxy: http://proxy.example:3128"),
        "{words}"
    );
}

#[test]
fn a_diagnosis_survives_json() {
    let observations = seen_at(&[SERVER], &[(4000, &[9000, 9000])]);
    let diagnosis = Diagnosis::of(measured(observations));
    let text = serde_json::to_string(&diagnosis).unwrap();
    assert_eq!(serde_json::from_str::<Diagnosis>(&text).unwrap(), diagnosis);
}

#[test]
fn filtering_is_what_the_probes_show_and_no_more() {
    use Filtering::{
        AddressAndPortDependent, AddressDependent, AtMostAddressDependent, EndpointIndependent,
        Unknown,
    };
    for (other_port, other_address, filtering) in [
        (Some(true), Some(true), EndpointIndependent),
        (Some(true), Some(false), AddressDependent),
        (Some(true), None, AtMostAddressDependent),
        (Some(false), Some(false), AddressAndPortDependent),
        (Some(false), None, AddressAndPortDependent),
        // One was lost, and the harder one came.
        (Some(false), Some(true), EndpointIndependent),
        (None, Some(true), EndpointIndependent),
        (None, Some(false), Unknown),
        (None, None, Unknown),
    ] {
        let probes = Probes {
            other_port,
            other_address,
        };
        let diagnosis = Diagnosis::of(Measurements {
            probes: Some(probes),
            ..measured(seen_at(&[SERVER], &[(4000, &[9000, 9000])]))
        });
        assert_eq!(diagnosis.filtering, filtering, "{probes:?}");
    }
    let unmeasured = Diagnosis::of(measured(seen_at(&[SERVER], &[(4000, &[9000])])));
    assert_eq!(unmeasured.filtering, Unknown);
    assert!(words(&unmeasured).contains("was not measured"));
    // Without the server there is nothing to say of it.
    assert!(!words(&Diagnosis::of(measured(Vec::new()))).contains("Filtering"));
}

#[test]
fn who_lets_others_in_is_reached_by_more_of_them() {
    let strict = (Some(false), Some(false));
    let by_address = (Some(true), Some(false));
    let one_address = (Some(true), None);
    let open = (Some(true), Some(true));
    let public: &[(u16, &[u16])] = &[];
    let stable: &[(u16, &[u16])] = &[(4000, &[9000, 9000])];
    let in_order: &[(u16, &[u16])] = &[(4000, &[9000, 9001]), (4001, &[9002, 9003])];
    let random: &[(u16, &[u16])] = &[(4000, &[9000, 31000]), (4001, &[60000, 1500])];
    for (seen, probes, reach, said) in [
        (
            public,
            open,
            Reach::Everybody,
            "no firewall keeps anybody out",
        ),
        (
            public,
            by_address,
            Reach::Everybody,
            "from any of their ports",
        ),
        (public, one_address, Reach::Everybody, "cannot be told"),
        (public, strict, Reach::Most, "A firewall lets only those in"),
        (stable, open, Reach::Everybody, "lets anybody in"),
        (
            stable,
            by_address,
            Reach::Everybody,
            "from any of their ports",
        ),
        (
            stable,
            one_address,
            Reach::Everybody,
            "the server has one address",
        ),
        (stable, strict, Reach::Most, "only from the very port"),
        (in_order, open, Reach::Everybody, "lets anybody in"),
        (in_order, strict, Reach::Some, "only from the very port"),
        (random, open, Reach::Everybody, "lets anybody in"),
        (random, by_address, Reach::Few, "from any of their ports"),
        (random, one_address, Reach::Few, "cannot be told"),
        (random, strict, Reach::Few, "only from the very port"),
    ] {
        let mut observations = seen_at(&[SERVER], seen);
        if seen.is_empty() {
            let own = address("198.51.100.7:4000");
            observations.push(Observation {
                local: own,
                server: address("203.0.113.1:4747"),
                seen: own,
            });
        }
        let (other_port, other_address) = probes;
        let diagnosis = Diagnosis::of(Measurements {
            probes: Some(Probes {
                other_port,
                other_address,
            }),
            ..measured(observations)
        });
        assert_eq!(diagnosis.reach, reach, "{seen:?} {probes:?}");
        let words = words(&diagnosis);
        assert!(words.contains(said), "{said}: {words}");
    }
}

#[test]
fn a_server_on_this_machine_tells_nothing_of_the_network() {
    let local = address("127.0.0.1:40000");
    let observation = |port| Observation {
        local,
        server: ([127, 0, 0, 1], port).into(),
        seen: local,
    };
    let diagnosis = Diagnosis::of(Measurements {
        server_probes: vec![reached("127.0.0.1:4747"), reached("127.0.0.1:4748")],
        ..measured(vec![observation(4747), observation(4748)])
    });
    assert_eq!(diagnosis.reach, Reach::Unknown);
    let words = words(&diagnosis);
    assert!(words.contains("tell nothing of the network"), "{words}");
    assert_eq!(diagnosis.findings.len(), 2, "{words}");
}
