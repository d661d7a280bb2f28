//! What runs on a router beside its rules: a proxy, a port mapping daemon.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::plan::RouterPortMapping;
use super::{Host, Lab};
use crate::process::binary;

const SOON: Duration = Duration::from_secs(10);

impl Lab {
    /// Starts an HTTP proxy on the router next to this host, which knows only
    /// CONNECT and only to port 443, and demands these credentials
    /// (`USER:PASSWORD`) if there are any. Returns its address.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_proxy(&self, host: Host, credentials: Option<&str>) -> SocketAddr {
        let node = self.gateway(host);
        let lan = self.routers()[&node].lan.clone();
        let mut command = self.command_at(&node, &binary("proxy"));
        command.arg(format!("{lan}.1:3128")).args(credentials);
        // It ends when its standard input does.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("starting the proxy");
        let mut ready = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout)
            .read_line(&mut ready)
            .expect("reading from the proxy");
        self.keep(format!("proxy-{node}"), child);
        ready.trim_end().parse().expect("the proxy's address")
    }

    /// Starts `miniupnpd` on a router, anew if it runs.
    pub(super) fn start_port_mapping(&self, node: &str, port_mapping: RouterPortMapping) {
        let name = format!("miniupnpd-{node}");
        self.end(&name);
        let lan = self.routers()[node].lan.clone();
        let folder = self.folder.path();
        let [configuration, log, pid] =
            ["conf", "log", "pid"].map(|kind| folder.join(format!("{name}.{kind}")));
        let upnp = matches!(
            port_mapping,
            RouterPortMapping::Upnp | RouterPortMapping::All
        );
        let text = format!(
            "ext_ifname=wan0\n\
             listening_ip=lan0\n\
             http_port=0\n\
             enable_upnp={}\n\
             enable_natpmp=yes\n\
             min_lifetime=20\n\
             max_lifetime=86400\n\
             secure_mode=yes\n\
             system_uptime=yes\n\
             notify_interval=30\n\
             uuid=00000000-0000-4000-8000-000000000001\n\
             ipv6_disable=yes\n\
             upnp_table_name=filter\n\
             upnp_nat_table_name=filter\n\
             upnp_forward_chain=miniupnpd\n\
             upnp_nat_chain=prerouting_miniupnpd\n\
             upnp_nat_postrouting_chain=postrouting_miniupnpd\n\
             allow 1024-65535 {lan}.0/24 1024-65535\n\
             deny 0-65535 0.0.0.0/0 0-65535\n",
            if upnp { "yes" } else { "no" },
        );
        fs::write(&configuration, text).expect("writing the configuration");
        let _ = fs::remove_file(&pid);
        let output = File::create(&log).expect("creating the log");
        let mut command = self.command_at(node, "/usr/sbin/miniupnpd".as_ref());
        command.arg("-d").arg("-f").arg(configuration);
        command.arg("-P").arg(pid).stdin(Stdio::null());
        command.stdout(output.try_clone().expect("a log"));
        let child = command.stderr(output).spawn().expect("starting miniupnpd");
        self.keep(name, child);
        wait_for(&log, "Listening for NAT-PMP/PCP traffic");
    }

    fn keep(&self, name: String, child: std::process::Child) {
        self.services
            .lock()
            .expect("the services")
            .insert(name, child);
    }

    fn end(&self, name: &str) {
        let child = self.services.lock().expect("the services").remove(name);
        if let Some(mut child) = child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn wait_for(log: &Path, text: &str) {
    let begun = Instant::now();
    loop {
        let log = fs::read_to_string(log).expect("the log");
        if log.contains(text) {
            return;
        }
        assert!(begun.elapsed() < SOON, "no \"{text}\" in {log}");
        thread::sleep(Duration::from_millis(20));
    }
}
