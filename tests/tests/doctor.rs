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
    assert_eq!(diagnosis["reach"], "everybody", "{diagnosis:#}");
    assert_eq!(diagnosis["mapping"], "no_nat");
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
    use pinhole_tests::lab::{
        self, Filtering, Host, Mapping, Order, Plan, Port, PortMapping, Router, Site,
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

    #[test]
    fn public_addresses_everybody_reaches() {
        let Some(diagnosis) = diagnosis(Router::PUBLIC) else {
            return;
        };
        assert_eq!(diagnosis["reach"], "everybody", "{diagnosis:#}");
        assert_eq!(diagnosis["mapping"], "no_nat");
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
        assert_eq!(diagnosis["layers"], "at_least_one");
    }

    #[test]
    fn ports_that_are_kept_are_seen_to_be() {
        let router = Router::of(
            Mapping::EndpointIndependent(Port::Preserved),
            Filtering::AddressAndPortDependent,
        );
        let Some(diagnosis) = diagnosis(router) else {
            return;
        };
        assert_eq!(diagnosis["mapping"]["stable"]["preserves_port"], true);
    }

    #[test]
    fn a_nat_that_counts_its_ports_some_reach() {
        let router = Router::of(
            Mapping::AddressAndPortDependent(Order::Sequential),
            Filtering::AddressAndPortDependent,
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
            port_mapping: Some(PortMapping::All),
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
