//! `pinhole doctor`, with the real binaries.
#![allow(clippy::indexing_slicing, reason = "a test fails by a panic")]

use pinhole_tests::scene::{SOON, Scene};

#[test]
fn the_doctor_says_what_works_and_what_the_last_connections_tried() {
    let scene = Scene::on_loopback();
    let (alice, bob) = (scene.peer("alice"), scene.peer("bob"));
    let nothing = alice.start(&["doctor", "--last"]).end(SOON);
    assert_eq!(
        (nothing.code, nothing.events.len()),
        (Some(0), 0),
        "{nothing:#?}"
    );
    let receiving = bob.receive(&["--once"]);
    let file = scene.file("notes.txt", b"words");
    let sent = alice.send("bob", &[&file]).end(SOON);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    assert_eq!(receiving.end(SOON).code, Some(0));

    let ended = alice.start(&["doctor"]).end(SOON);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    let diagnosis = ended.event("diagnosis");
    // Loopback tells nothing of the network.
    assert_eq!(diagnosis["reach"], "unknown", "{diagnosis:#}");
    assert_eq!(diagnosis["mapping"], "no_nat");
    assert_eq!(diagnosis["filtering"], "at_most_address_dependent");
    assert_eq!(diagnosis["measurements"]["port_mapping"], "not_asked");
    assert_eq!(diagnosis["findings"][0]["topic"], "What works");
    let attempt = ended.event("attempt");
    assert_eq!(
        (&attempt["peer"], &attempt["invited"]),
        (&"bob".into(), &false.into())
    );
    assert_eq!(attempt["path"], sent.event("completed")["path"]);
    let tried = attempt["tried"].as_array().expect("a list");
    assert!(
        tried
            .iter()
            .any(|line| line.as_str().is_some_and(|l| l.ends_with("chosen")))
    );

    let of_bob = bob.start(&["doctor", "--last"]).end(SOON);
    let attempt = of_bob.event("attempt");
    assert_eq!(
        (&attempt["peer"], &attempt["invited"]),
        (&"alice".into(), &true.into())
    );
}

#[test]
fn a_server_that_is_gone_is_explained_and_the_exit_code_says_so() {
    let mut scene = Scene::on_loopback();
    let alice = scene.peer("alice");
    scene.stop_server();
    let ended = alice.start(&["doctor"]).end(SOON);
    assert_eq!(ended.code, Some(6), "{ended:#?}");
    let diagnosis = ended.event("diagnosis");
    assert_eq!(diagnosis["reach"], "nobody", "{diagnosis:#}");
    let advice = diagnosis["findings"].as_array().expect("a list").iter();
    let advice: Vec<_> = advice
        .filter_map(|found| found["advice"].as_str())
        .collect();
    assert!(
        advice
            .iter()
            .any(|words| words.contains("does not run on it")),
        "{advice:?}"
    );
}

#[cfg(target_os = "linux")]
mod behind {
    use std::sync::Mutex;
    use std::thread;

    use pinhole_tests::lab::{
        self, Host, Lab, NatFiltering, NatMapping, Order, Plan, Port, Router, RouterPortMapping,
        Site, TYPES,
    };
    use pinhole_tests::scene::{SOON, Scene};
    use serde_json::{Value, json};

    /// What the doctor says at such a site.
    fn diagnosis(site: impl Into<Site>) -> Option<Value> {
        let lab = lab::build_or_skip(Plan::one_lan(site))?;
        let scene = Scene::in_lab(&lab);
        let alice = scene.peer_in(&lab, Host::A, "alice");
        let ended = alice.start(&["doctor"]).end(SOON);
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        Some(ended.event("diagnosis").clone())
    }

    /// Laboratories at once: most of their time is waiting.
    const AT_ONCE: usize = 4;

    /// What the doctor is to say of this router's mapping, its filtering, and who
    /// is reached, with one address of the server or two.
    fn expected(router: Router, addresses: usize) -> [Value; 3] {
        let two = addresses == 2;
        let stable = |preserves_port: bool| {
            let compared = json!({"preserves_port": preserves_port, "addresses_compared": two});
            json!({ "stable": compared })
        };
        let (mapping, reach) = match router.mapping {
            NatMapping::None => (json!("no_nat"), "most"),
            NatMapping::EndpointIndependent(port) => (stable(port == Port::Preserved), "most"),
            NatMapping::AddressDependent if two => (json!("address_dependent"), "few"),
            // One address cannot tell.
            NatMapping::AddressDependent => (stable(false), "most"),
            NatMapping::AddressAndPortDependent(Order::Sequential) => {
                (json!({"port_dependent": {"step": 1}}), "some")
            }
            NatMapping::AddressAndPortDependent(Order::Random) => {
                (json!({"port_dependent": {"step": null}}), "few")
            }
        };
        let keeps_its_port = reach == "most";
        let (filtering, reach) = match router.filtering {
            NatFiltering::AddressAndPortDependent => ("address_and_port_dependent", reach),
            NatFiltering::EndpointIndependent if two => ("endpoint_independent", "everybody"),
            NatFiltering::AddressDependent if two && keeps_its_port => {
                ("address_dependent", "everybody")
            }
            NatFiltering::AddressDependent if two => ("address_dependent", reach),
            _ if keeps_its_port => ("at_most_address_dependent", "everybody"),
            _ => ("at_most_address_dependent", reach),
        };
        [mapping, json!(filtering), json!(reach)]
    }

    /// What the doctor says of them behind this router.
    fn said(router: Router, addresses: usize) -> [Value; 3] {
        let lab = Lab::build(Plan::one_lan(router));
        let listen = [Lab::SERVER, Lab::SERVER_2].map(|ip| format!("{ip}:4747"));
        let listen: Vec<&str> = listen.iter().take(addresses).map(|text| &**text).collect();
        let scene = Scene::in_lab_at(&lab, &listen);
        let alice = scene.peer_in(&lab, Host::A, "alice");
        let ended = alice.start(&["--no-port-mapping", "doctor"]).end(SOON);
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        let diagnosis = ended.event("diagnosis");
        ["mapping", "filtering", "reach"].map(|field| diagnosis[field].clone())
    }

    #[track_caller]
    fn every_kind_of_router_is_named(addresses: usize) {
        if lab::skipped() {
            return;
        }
        let kinds = Mutex::new(TYPES.iter());
        let wrong = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    loop {
                        let next = kinds.lock().expect("the kinds").next();
                        let Some(&(name, router)) = next else { break };
                        let (said, expected) =
                            (said(router, addresses), expected(router, addresses));
                        println!(
                            "{name:<22} {}",
                            said.each_ref().map(Value::to_string).join("  ")
                        );
                        if said != expected {
                            let what = format!("{name}: {said:?}, not {expected:?}");
                            wrong.lock().expect("what is wrong").push(what);
                        }
                    }
                });
            }
        });
        let wrong = wrong.into_inner().expect("what is wrong");
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn every_kind_of_router_is_named_as_far_as_one_address_tells() {
        every_kind_of_router_is_named(1);
    }

    #[test]
    fn every_kind_of_router_is_named_exactly_by_two_addresses() {
        every_kind_of_router_is_named(2);
    }

    #[test]
    fn public_addresses_everybody_reaches() {
        let Some(diagnosis) = diagnosis(Router::PUBLIC) else {
            return;
        };
        assert_eq!(diagnosis["reach"], "everybody", "{diagnosis:#}");
        assert_eq!(diagnosis["mapping"], "no_nat");
        assert_eq!(diagnosis["filtering"], "at_most_address_dependent");
        assert_eq!(diagnosis["layers"], "none");
        assert_eq!(diagnosis["public"], json!(["198.51.101.10"]));
    }

    #[test]
    fn a_home_router_most_reach() {
        let Some(diagnosis) = diagnosis(Router::HOME) else {
            return;
        };
        assert_eq!(diagnosis["reach"], "most", "{diagnosis:#}");
        assert_eq!(diagnosis["mapping"]["stable"]["preserves_port"], false);
        assert_eq!(diagnosis["filtering"], "address_and_port_dependent");
        assert_eq!(diagnosis["layers"], "at_least_one");
    }

    #[test]
    fn ports_that_are_kept_are_seen_to_be() {
        let router = Router::of(
            NatMapping::EndpointIndependent(Port::Preserved),
            NatFiltering::AddressAndPortDependent,
        );
        let Some(diagnosis) = diagnosis(router) else {
            return;
        };
        assert_eq!(diagnosis["mapping"]["stable"]["preserves_port"], true);
    }

    #[test]
    fn a_nat_that_counts_its_ports_some_reach() {
        let router = Router::of(
            NatMapping::AddressAndPortDependent(Order::Sequential),
            NatFiltering::AddressAndPortDependent,
        );
        let Some(diagnosis) = diagnosis(router) else {
            return;
        };
        assert_eq!(diagnosis["reach"], "some", "{diagnosis:#}");
        assert_eq!(diagnosis["mapping"]["port_dependent"]["step"], 1);
    }

    #[test]
    fn a_nat_without_order_few_reach() {
        let Some(diagnosis) = diagnosis(Router::SYMMETRIC) else {
            return;
        };
        assert_eq!(diagnosis["reach"], "few", "{diagnosis:#}");
        assert_eq!(diagnosis["mapping"]["port_dependent"]["step"], json!(null));
    }

    #[test]
    fn a_router_that_opens_ports_everybody_reaches_whatever_it_does_else() {
        let router = Router {
            port_mapping: Some(RouterPortMapping::All),
            ..Router::SYMMETRIC
        };
        let Some(diagnosis) = diagnosis(router) else {
            return;
        };
        assert_eq!(diagnosis["reach"], "everybody", "{diagnosis:#}");
        assert_eq!(diagnosis["layers"], "one");
        let granted = &diagnosis["measurements"]["port_mapping"]["granted"];
        assert!(granted["external"].is_string(), "{granted:#}");
    }
}
