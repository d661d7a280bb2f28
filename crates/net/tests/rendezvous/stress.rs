use crate::scene::*;
use pinhole_net::*;
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stress() {
    let server = Server::start();
    let alice = Client::new(&server, "alice").await;
    let mut bob = Client::new(&server, "bob").await;
    let n: u32 = std::env::var("N")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    let mut relayed = 0;
    let mut slow = 0;
    for i in 0..n {
        let known = i;
        let _ = known;
        bob_known(&bob, alice.key);
        let (a, b) = connect(&alice, &mut bob).await;
        let (a, b) = (a.unwrap(), b.unwrap());
        if a.path == PathKind::Relay {
            relayed += 1;
            println!("RELAY {:?} {} | bob {}", a.elapsed, a.report, b.report);
            tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
            println!(
                "  later {:?} {}",
                a.handle.path().borrow().kind,
                a.handle.path().borrow().report
            );
        }
        if a.elapsed > std::time::Duration::from_millis(100) {
            slow += 1;
            println!("slow {:?} {:?} {}", a.path, a.elapsed, a.report);
        }
    }
    println!("relayed {relayed} slow {slow} of {n}");
}
fn bob_known(bob: &Client, key: PeerKey) {
    bob.known.set([key]);
}
