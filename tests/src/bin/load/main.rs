//! Loads a rendezvous server of its own over loopback and says what that costs.
#![allow(
    clippy::indexing_slicing,
    reason = "what is measured wrongly may as well panic"
)]

#[cfg(target_os = "linux")]
mod bystanders;
#[cfg(target_os = "linux")]
mod crowd;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod person;
#[cfg(target_os = "linux")]
mod relay;
#[cfg(target_os = "linux")]
mod scenarios;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod socat;
#[cfg(target_os = "linux")]
mod storms;
#[cfg(target_os = "linux")]
mod usage;

#[cfg(target_os = "linux")]
mod command_line {
    use std::net::SocketAddr;
    use std::time::Duration;

    use anyhow::{Context, Result};
    use clap::{Parser, Subcommand};

    use crate::bystanders;
    use crate::scenarios::{self, StormPlan};
    use crate::server::Site;
    use crate::storms::Storm;

    /// Loads a pinhole-server over loopback and prints what that costs the server.
    ///
    /// Each scenario starts the pinhole-server beside this program on a folder of its own,
    /// and ends it. People have a key each, speak TLS, and come from 127.x.y.z, so that
    /// the server counts each of them as another network. CPU and memory are those of the
    /// server's processes (/proc/PID), and those of its database apart. Server and load
    /// share this machine, so leave it alone meanwhile, and compare ratios.
    ///
    ///     cargo build --release -p pinhole-server -p pinhole-tests --bins
    ///     target/release/load idle 1000 10000
    ///     target/release/load --nodes 2 idle 1000 10000
    #[derive(Debug, Parser)]
    #[command(version, verbatim_doc_comment)]
    struct Arguments {
        /// Several nodes that are one server, on a PostgreSQL of their own that does not
        /// sync. People are spread over them, and pairs are at different nodes [default:
        /// one server with its names in a file]
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
        nodes: Option<u16>,
        #[command(subcommand)]
        scenario: Scenario,
    }

    #[derive(Debug, Subcommand)]
    enum Scenario {
        /// Memory of an idle person, and the cost of a login beside so many
        Idle {
            /// How many people are online at each measurement, from few to many
            #[arg(default_values_t = [200, 1_000, 2_000])]
            people: Vec<usize>,
        },
        /// Logins a second: new names, then the same names again
        Logins {
            #[arg(default_value_t = 2_000)]
            people: usize,
        },
        /// Kill the server while people are online, and let all of them come back at once
        Restart {
            #[arg(default_value_t = 2_000)]
            people: usize,
            /// They come back from one address, as from an office
            #[arg(long)]
            office: bool,
        },
        /// Pings and newcomers beside strangers from many addresses
        Storm {
            /// Some of the storms; all of them if none is named
            storms: Vec<Storm>,
            /// People who are online meanwhile
            #[arg(long, default_value_t = 500)]
            people: usize,
            /// Strangers a second
            #[arg(long, default_value_t = 2_000)]
            rate: usize,
            /// Seconds for each storm
            #[arg(long, default_value_t = 12)]
            seconds: u64,
        },
        /// Introductions a second beside idle people
        Introductions {
            #[arg(default_value_t = 1_000)]
            people: usize,
            /// Pairs that are introduced again and again, all at once
            #[arg(long, default_value_t = 32)]
            pairs: usize,
        },
        /// Bytes a second through the relay, without limits, and their cost
        Relay {
            /// Pairs at once
            #[arg(default_values_t = [1, 10, 100])]
            pairs: Vec<usize>,
            #[arg(long, default_value_t = 8)]
            seconds: u64,
            /// Let socat carry the same as well
            #[arg(long)]
            socat: bool,
        },
        /// Idle people of a scenario, which starts this for them
        #[command(hide = true)]
        Play {
            first: usize,
            count: usize,
            nodes: Vec<SocketAddr>,
        },
    }

    pub(crate) fn run() -> Result<()> {
        let arguments = Arguments::parse();
        open_more_files()?;
        let runtime = tokio::runtime::Runtime::new()?;
        let site = Site::new(arguments.nodes)?;
        runtime.block_on(run_scenario(&site, arguments.scenario))
    }

    async fn run_scenario(site: &Site, scenario: Scenario) -> Result<()> {
        match scenario {
            Scenario::Idle { people } => scenarios::idle(site, &people).await,
            Scenario::Logins { people } => scenarios::logins(site, people).await,
            Scenario::Restart { people, office } => scenarios::restart(site, people, office).await,
            Scenario::Storm {
                storms,
                people,
                rate,
                seconds,
            } => {
                let storms = if storms.is_empty() {
                    Storm::ALL.to_vec()
                } else {
                    storms
                };
                let plan = StormPlan {
                    online: people,
                    per_second: rate,
                    time: Duration::from_secs(seconds),
                };
                scenarios::storm(site, &storms, plan).await
            }
            Scenario::Introductions { people, pairs } => {
                scenarios::introductions(site, people, pairs).await
            }
            Scenario::Relay {
                pairs,
                seconds,
                socat,
            } => {
                let time = Duration::from_secs(seconds);
                for (number, &pairs) in (0..).zip(&pairs) {
                    scenarios::relay(site, number, pairs, time).await?;
                    if socat {
                        scenarios::socat(pairs, time).await?;
                    }
                }
                Ok(())
            }
            Scenario::Play {
                first,
                count,
                nodes,
            } => bystanders::play(first, count, &nodes).await,
        }
    }

    /// Every person is an open file.
    fn open_more_files() -> Result<()> {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).context("the limit of open files cannot be raised")?;
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    command_line::run()
}

#[cfg(not(target_os = "linux"))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("the load generator needs Linux: it reads /proc and uses all of 127.0.0.0/8")
}
