//! Fake routers on loopback. Only Linux has all of `127.0.0.0/8`, which it takes
//! to have several of them on the one port that PCP and NAT-PMP know.
#![cfg(target_os = "linux")]

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::AtomicU8;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const OUTSIDE: [u8; 4] = [198, 51, 100, 7];

/// One request of a client, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    version: u8,
    port: u16,
    lifetime_s: u32,
}

/// A router that answers datagrams as `answer` says, and searches not at all.
struct Router {
    network: Network,
    asked: Arc<Mutex<Vec<Asked>>>,
    _search: UdpSocket,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn asked(request: &[u8]) -> Asked {
    let (port_at, lifetime_at) = match (request[0], request[1]) {
        (2, _) => (40, 4),
        // Which public address there is.
        (_, 0) => {
            return Asked {
                version: 0,
                port: 0,
                lifetime_s: 0,
            };
        }
        _ => (4, 8),
    };
    Asked {
        version: request[0],
        port: u16_at(request, port_at),
        lifetime_s: u32_at(request, lifetime_at),
    }
}

/// RFC 6887, section 11.1.
fn pcp(request: &[u8], external: ([u8; 4], u16), lifetime_s: u32) -> Vec<u8> {
    let mut answer = vec![0; 60];
    answer[0] = 2;
    answer[1] = request[1] | 0x80;
    let lifetime_s = lifetime_s.min(u32_at(request, 4));
    answer[4..8].copy_from_slice(&lifetime_s.to_be_bytes());
    answer[24..42].copy_from_slice(&request[24..42]);
    answer[42..44].copy_from_slice(&external.1.to_be_bytes());
    let ip = Ipv4Addr::from(external.0).to_ipv6_mapped();
    answer[44..].copy_from_slice(&ip.octets());
    answer
}

/// RFC 6886, sections 3.2, 3.3 and 3.5.
fn nat_pmp(request: &[u8]) -> Vec<u8> {
    let mut answer = vec![0, request[1] | 0x80, 0, 0, 0, 0, 0, 1];
    match (request[0], request[1]) {
        (0, 0) => answer.extend(OUTSIDE),
        (0, _) => {
            let gone = u32_at(request, 8) == 0;
            answer.extend(&request[4..6]);
            answer.extend(if gone {
                [0, 0]
            } else {
                [request[4], request[5]]
            });
            answer.extend(&request[8..12]);
        }
        // An unsupported version.
        _ => answer[3] = 1,
    }
    answer
}

impl Router {
    async fn start(answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> Self {
        static STARTED: AtomicU8 = AtomicU8::new(2);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let gateway = Ipv4Addr::new(127, high, low, number);
        let socket = UdpSocket::bind((gateway, crab_nat::GATEWAY_PORT))
            .await
            .unwrap();
        let search = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let requests = Arc::<Mutex<Vec<Asked>>>::default();
        let log = requests.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1100];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let request = &buffer[..length];
                log.lock().unwrap().push(asked(request));
                if let Some(answer) = answer(request) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Self {
            network: Network {
                gateway,
                local: Ipv4Addr::LOCALHOST,
                search: search.local_addr().unwrap(),
            },
            asked: requests,
            _search: search,
        }
    }

    /// Grants every port as the same port outside, for `lifetime_s`.
    async fn with_pcp(lifetime_s: u32) -> Self {
        Self::start(move |request| match request[0] {
            2 => Some(pcp(request, (OUTSIDE, u16_at(request, 40)), lifetime_s)),
            _ => None,
        })
        .await
    }

    fn mapper(&self) -> PortMapper {
        let network = self.network;
        PortMapper::with(move || Some(network))
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    async fn until_asked(&self, enough: impl Fn(&[Asked]) -> bool) {
        let enough = async {
            while !enough(&self.asked()) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, enough).await.expect("never asked");
    }
}

/// Whether the router is not asked for a mapping of this port, or grants none.
async fn is_left_alone(mapper: &PortMapper, port: u16) -> bool {
    let mapped = mapper.map(NonZeroU16::new(port).unwrap());
    timeout(PATIENCE, mapped).await.unwrap().is_err()
}

async fn until(mapping: &mut PortMapping, external: Option<SocketAddr>) {
    let becomes = mapping.0.wait_for(|now| *now == external);
    timeout(PATIENCE, becomes).await.expect("never").unwrap();
}

#[tokio::test]
async fn pcp_opens_a_port_until_nobody_wants_it() {
    let router = Router::with_pcp(3600).await;
    let mapper = router.mapper();
    let mut mapping = mapper.keep(4000).unwrap();
    until(&mut mapping, Some((OUTSIDE, 4000).into())).await;
    drop(mapping);
    mapper.all_released(PATIENCE).await;
    let asked = router.asked();
    let pcp: Vec<_> = asked.iter().filter(|asked| asked.version == 2).collect();
    assert_eq!(
        (pcp[0].port, pcp[0].lifetime_s > 0),
        (4000, true),
        "{asked:?}"
    );
    let last = asked.last().unwrap();
    assert_eq!((last.port, last.lifetime_s), (4000, 0), "{asked:?}");
}

#[tokio::test]
async fn nat_pmp_serves_where_pcp_is_refused_and_where_it_is_not_known() {
    for knows_pcp_versions in [true, false] {
        let router = Router::start(move |request| match request[0] {
            2 if !knows_pcp_versions => None,
            _ => Some(nat_pmp(request)),
        })
        .await;
        let mapper = router.mapper();
        let grant = timeout(PATIENCE, mapper.examine(4000)).await.unwrap();
        let expected = Grant {
            protocol: MappingProtocol::NatPmp,
            external: (OUTSIDE, 4000).into(),
        };
        assert_eq!(grant, Some(expected));
        let last = router.asked().pop().unwrap();
        assert_eq!((last.port, last.lifetime_s), (4000, 0));
    }
}

#[tokio::test]
async fn a_mapping_is_renewed_as_long_as_it_is_wanted() {
    let router = Router::with_pcp(1).await;
    let mut mapping = router.mapper().keep(4000).unwrap();
    until(&mut mapping, Some((OUTSIDE, 4000).into())).await;
    let of_4000 = |asked: &[Asked]| asked.iter().filter(|a| a.version == 2).count();
    router.until_asked(|asked| of_4000(asked) >= 3).await;
    assert_eq!(mapping.external(), Some((OUTSIDE, 4000).into()));
}

#[tokio::test]
async fn what_leads_nowhere_is_given_back_and_not_asked_for_again() {
    for external in [
        ([100, 64, 0, 9], 4000),
        ([192, 168, 0, 9], 4000),
        (OUTSIDE, 80),
    ] {
        let router =
            Router::start(move |request| (request[0] == 2).then(|| pcp(request, external, 3600)))
                .await;
        let mapper = router.mapper();
        let mapping = mapper.keep(4000).unwrap();
        let released = |asked: &[Asked]| {
            asked
                .last()
                .is_some_and(|a| a.port == 4000 && a.lifetime_s == 0)
        };
        router.until_asked(released).await;
        assert_eq!(mapping.external(), None);
        // The router has told us; nobody else asks now.
        let before = router.asked().len();
        assert!(is_left_alone(&mapper, 4001).await, "{external:?}");
        assert_eq!(router.asked().len(), before);
    }
}

#[tokio::test]
async fn a_router_that_says_nothing_or_rubbish_is_left_alone_until_the_network_changes() {
    let rubbish = |request: &[u8]| Some(vec![0xff; request.len()]);
    let empty = |_: &[u8]| Some(Vec::new());
    let truncated = |request: &[u8]| Some(pcp(request, (OUTSIDE, 1), 60)[..30].to_vec());
    let routers = [
        Router::start(|_| None).await,
        Router::start(rubbish).await,
        Router::start(empty).await,
        Router::start(move |request| (request[0] == 2).then(|| truncated(request)).flatten()).await,
    ];
    let good = Router::with_pcp(3600).await;
    for bad in &routers {
        let network = Arc::new(Mutex::new(bad.network));
        let current = network.clone();
        let mapper = PortMapper::with(move || Some(*current.lock().unwrap()));
        let waiting = mapper.keep(4000).unwrap();
        assert!(is_left_alone(&mapper, 4001).await);
        let asked = bad.asked().len();
        assert!(asked <= 4, "{asked} datagrams");
        assert!(is_left_alone(&mapper, 4002).await);
        assert_eq!(bad.asked().len(), asked);
        assert_eq!(waiting.external(), None);
        *network.lock().unwrap() = good.network;
        let grant = timeout(PATIENCE, mapper.examine(4003)).await.unwrap();
        assert_eq!(grant.unwrap().external, (OUTSIDE, 4003).into());
    }
}

#[tokio::test]
async fn a_router_says_what_its_outside_is_even_if_it_grants_nothing() {
    let refuses = |result: u8| {
        move |request: &[u8]| {
            let mut answer = nat_pmp(request);
            // Not authorised to map; the public address is as `result` says.
            answer[3] = if request[1] == 0 { result } else { 2 };
            (request[0] == 0).then_some(answer)
        }
    };
    for (result, outside) in [
        (0, RouterOutside::Address(OUTSIDE.into())),
        (3, RouterOutside::Unusable),
        (4, RouterOutside::Unsaid),
    ] {
        let router = Router::start(refuses(result)).await;
        let mapper = router.mapper();
        assert_eq!(timeout(PATIENCE, mapper.examine(4000)).await, Ok(None));
        assert_eq!(timeout(PATIENCE, mapper.outside()).await, Ok(outside));
    }
}

#[tokio::test]
async fn a_upnp_router_that_hangs_or_lies_is_given_up() {
    for answer in [
        None,
        Some("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n<a>"),
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let location = format!("http://{}/root.xml", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                if let Some(answer) = answer {
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
                open.push(stream);
            }
        });
        let search = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let network = Network {
            gateway: Ipv4Addr::LOCALHOST,
            local: Ipv4Addr::LOCALHOST,
            search: search.local_addr().unwrap(),
        };
        tokio::spawn(async move {
            let mut buffer = [0; 1024];
            while let Ok((_, from)) = search.recv_from(&mut buffer).await {
                let found = format!("HTTP/1.1 200 OK\r\nLOCATION: {location}\r\n\r\n");
                let _ = search.send_to(found.as_bytes(), from).await;
            }
        });
        let mapper = PortMapper::with(move || Some(network));
        assert_eq!(timeout(PATIENCE, mapper.examine(4000)).await, Ok(None));
    }
}

#[tokio::test]
async fn no_more_than_a_few_ports_are_open_at_a_time() {
    let router = Router::with_pcp(3600).await;
    let mapper = router.mapper();
    let mut mappings: Vec<_> = (4000..)
        .take(MAX_MAPPINGS + 1)
        .map(|port| mapper.keep(port).unwrap())
        .collect();
    let open = |mappings: &[PortMapping]| mappings.iter().filter_map(PortMapping::external).count();
    let full = async {
        while open(&mappings) < MAX_MAPPINGS {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, full).await.expect("never full");
    assert_eq!(open(&mappings), MAX_MAPPINGS);
    let (mut waiting, held): (Vec<_>, Vec<_>) = mappings
        .drain(..)
        .partition(|mapping| mapping.external().is_none());
    drop(held);
    let port = waiting[0].0.wait_for(Option::is_some);
    timeout(PATIENCE, port)
        .await
        .expect("waits for ever")
        .unwrap();
}

#[tokio::test]
async fn what_is_just_being_granted_at_the_end_is_released_too() {
    let router = Router::with_pcp(3600).await;
    let mapper = router.mapper();
    let mut first = mapper.keep(4000).unwrap();
    until(&mut first, Some((OUTSIDE, 4000).into())).await;
    let second = mapper.keep(4001).unwrap();
    router
        .until_asked(|asked| asked.iter().any(|a| a.port == 4001))
        .await;
    drop((first, second));
    mapper.all_released(PATIENCE).await;
    let released = |port| {
        let asked = router.asked();
        let of_port = asked.iter().rfind(|asked| asked.port == port);
        of_port.is_some_and(|last| last.lifetime_s == 0)
    };
    assert!(released(4000) && released(4001), "{:?}", router.asked());
}

#[tokio::test]
async fn switching_it_off_closes_what_is_open_and_on_opens_it_again() {
    let router = Router::with_pcp(3600).await;
    let mapper = router.mapper();
    let mut mapping = mapper.keep(4000).unwrap();
    until(&mut mapping, Some((OUTSIDE, 4000).into())).await;
    mapper.switch_off();
    until(&mut mapping, None).await;
    mapper.all_released(PATIENCE).await;
    assert_eq!(router.asked().last().unwrap().lifetime_s, 0);
    mapper.switch_on();
    until(&mut mapping, Some((OUTSIDE, 4000).into())).await;
}

#[tokio::test]
async fn without_a_router_nothing_happens() {
    let mapper = PortMapper::with(|| None);
    assert_eq!(timeout(PATIENCE, mapper.examine(4000)).await, Ok(None));
}

#[test]
fn mappings_are_renewed_at_half_time_but_neither_all_the_time_nor_never() {
    let seconds = Duration::from_secs;
    assert_eq!(renew_after(seconds(1200)), seconds(600));
    assert_eq!(renew_after(seconds(0)), RENEW_AFTER_MIN);
    assert_eq!(renew_after(seconds(u32::MAX.into())), RENEW_AFTER_MAX);
}
