//! Pinhole beside what people use instead, in one run, on one machine.
//!
//! ```text
//! cargo build --release -p pinhole-cli -p pinhole-server -p pinhole-tests --bins
//! target/release/bench [--runs N] [--mib N] [--only CONTENDER]... [SCENARIO...]
//! ```
//!
//! Needs Linux and root; openssh, rsync and iperf3 from the system, wormhole-rs
//! (with `twist` and its mailbox server) and sendme where they are on the
//! `PATH`; `nat` asks for magic-wormhole, its transit relay and `iroh-relay`,
//! too. Both sides are namespaces on one machine. The contenders take turns,
//! and the median of each is printed: machines drift, so look at the ratios.

#![allow(
    clippy::indexing_slicing,
    reason = "what is measured wrongly may as well panic"
)]

#[cfg(target_os = "linux")]
mod contenders;
#[cfg(target_os = "linux")]
mod lines;
#[cfg(target_os = "linux")]
mod measured;
#[cfg(target_os = "linux")]
mod nat;
#[cfg(target_os = "linux")]
mod race;
#[cfg(target_os = "linux")]
mod resume;
#[cfg(target_os = "linux")]
mod stun;

#[cfg(target_os = "linux")]
mod scenarios {
    use anyhow::{Context, Result, bail, ensure};
    use pinhole_tests::lab;

    use crate::{lines, nat, race, resume};

    /// What the command line asks for.
    pub(crate) struct Asked {
        pub(crate) runs: usize,
        /// Instead of a scenario's own size.
        pub(crate) mib: Option<u64>,
        /// Of those that take turns; none means all.
        pub(crate) only: Vec<String>,
    }

    impl Asked {
        pub(crate) fn wants(&self, contender: &str) -> bool {
            self.only.is_empty() || self.only.iter().any(|name| name == contender)
        }
    }

    type Scenario = (&'static str, &'static str, fn(&Asked) -> Result<()>);

    const SCENARIOS: &[Scenario] = &[
        (
            "large",
            "one file (of 4 GiB unless --mib says otherwise), in memory",
            race::large,
        ),
        (
            "disk",
            "one file (of 4 GiB unless --mib says otherwise), on disk",
            race::disk,
        ),
        ("files", "10,000 files of 4 KiB, in memory", race::files),
        (
            "files-disk",
            "10,000 files of 4 KiB, on disk",
            race::files_disk,
        ),
        (
            "photos",
            "4,000 MiB in files (of 8 MiB unless --mib says otherwise), on disk",
            race::photos,
        ),
        ("many", "100,000 files of 1 KiB: memory", race::many),
        (
            "tiny",
            "one file of 1 KiB, everything cold, one LAN",
            race::tiny,
        ),
        (
            "line-100",
            "100 Mbit/s, 100 ms there and back",
            lines::line_100,
        ),
        (
            "line-1000",
            "1 Gbit/s, 100 ms there and back",
            lines::line_1000,
        ),
        (
            "first-byte",
            "until the first byte, through two NATs, 100 ms",
            lines::first_byte,
        ),
        ("resume", "one file of 1 GiB, cut at half", resume::resume),
        (
            "nat",
            "one file of 4 MiB through routers, everything cold",
            nat::nat,
        ),
    ];

    pub(crate) fn run() -> Result<()> {
        if let Some(reason) = lab::unavailable() {
            bail!(reason);
        }
        let mut asked = Asked {
            runs: 5,
            mib: None,
            only: Vec::new(),
        };
        let mut chosen = Vec::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().context("a value is missing");
            match argument.as_str() {
                "--runs" => asked.runs = value()?.parse()?,
                "--mib" => asked.mib = Some(value()?.parse()?),
                "--only" => asked.only.push(value()?),
                name => {
                    let found = SCENARIOS.iter().find(|(known, ..)| *known == name);
                    let names: Vec<_> = SCENARIOS.iter().map(|(name, ..)| *name).collect();
                    chosen.push(*found.with_context(|| format!("one of {}", names.join(", ")))?);
                }
            }
        }
        ensure!(asked.runs > 0, "no runs");
        if chosen.is_empty() {
            chosen = SCENARIOS.to_vec();
        }
        for (name, title, run) in chosen {
            println!("{name}: {title}; median of {}", asked.runs);
            run(&asked).with_context(|| name)?;
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    scenarios::run()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("the benchmark needs Linux's network namespaces");
    std::process::exit(2);
}
