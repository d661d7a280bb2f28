//! What an operator does with a server's data, while it runs or not.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use pinhole_proto::key::{Fingerprint, PeerKey};
use pinhole_proto::name::PeerName;
use pinhole_server::Limits;
use pinhole_server::data_dir::{self, back_up, inspect, is_in_use, open_names};
use pinhole_server::listener::{ListenAddress, or_everywhere};
use pinhole_server::names::{Database, NameEntry, Names, start_of};
use serde::Serialize;

use crate::arguments::{NamesTask, Place, ServeArguments, data_dir_or_default, database};
use crate::config::{self, ConfigError};

/// Where the server keeps its data, as the arguments say or its configuration.
fn place_of(place: &Place) -> anyhow::Result<(PathBuf, Option<Database>)> {
    let of_config = || -> Result<Option<ServeArguments>, ConfigError> {
        let Some(path) = &place.config else {
            return Ok(None);
        };
        Ok(Some(config::of_file(path)?.serve))
    };
    let (data_dir, url) = match of_config()? {
        Some(serve) => (serve.data_dir, serve.database),
        None => (None, None),
    };
    let data_dir = data_dir_or_default(place.data_dir.clone().or(data_dir))?;
    let url = place.database.as_deref().or(url.as_deref());
    Ok((data_dir, database(url)?))
}

pub(crate) async fn backup(folder: &Path, place: &Place) -> anyhow::Result<()> {
    let (data_dir, database) = place_of(place)?;
    let (fingerprint, names) = back_up(&data_dir, database, folder).await?;
    let folder = folder.display();
    writeln!(
        io::stdout(),
        "{folder} has the key {fingerprint} and {names} names"
    )?;
    Ok(())
}

/// Carries the names over to a database, and says what comes next.
pub(crate) async fn migrate(place: &Place) -> anyhow::Result<()> {
    let (data_dir, database) = place_of(place)?;
    let database = database.context("say where the names shall go with --database")?;
    let shown = database.to_string();
    let (fingerprint, names) = data_dir::migrate(&data_dir, database).await?;
    let folder = data_dir.display();
    writeln!(
        io::stdout(),
        "{shown} has the {names} names of the server {fingerprint} now. Start the server with \
         --database from now on; {folder} keeps its key and, as names.sqlite.migrated, the names \
         as they were. For another node, copy server.key from there into its data folder"
    )?;
    Ok(())
}

/// An entry as a line of JSON.
#[derive(Serialize)]
struct EntryLine<'a> {
    name: &'a str,
    key: Option<PeerKey>,
    fingerprint: Option<Fingerprint>,
    registered_at: Option<String>,
    banned_at: Option<String>,
    revoked_at: Option<String>,
    used_on: Option<String>,
    released_at: Option<String>,
}

impl<'a> From<&'a NameEntry> for EntryLine<'a> {
    fn from(entry: &'a NameEntry) -> Self {
        Self {
            name: &entry.name,
            key: entry.key,
            fingerprint: entry.key.as_ref().map(PeerKey::fingerprint),
            registered_at: entry.registered_at_s.map(date),
            banned_at: entry.banned_at_s.map(date),
            revoked_at: entry.revoked_at_s.map(date),
            used_on: entry.used_on.map(day),
            released_at: entry.released_at_s.map(date),
        }
    }
}

fn date(at_s: i64) -> String {
    Timestamp::from_second(at_s).map_or_else(|_| at_s.to_string(), |at| at.to_string())
}

fn day(number: i64) -> String {
    let mut date = date(start_of(number));
    date.truncate("2026-01-01".len());
    date
}

/// An entry as a line for people.
fn line(entry: &NameEntry) -> String {
    let name = &entry.name;
    let mut line = match (entry.key, entry.registered_at_s) {
        (Some(key), Some(at_s)) => format!("{name} {} since {}", key.fingerprint(), date(at_s)),
        _ => format!("{name} is not registered"),
    };
    if let Some(number) = entry.used_on {
        line.push_str(&format!(", last used on {}", day(number)));
    }
    for (what, at_s) in [
        ("banned since", entry.banned_at_s),
        ("its key revoked since", entry.revoked_at_s),
        ("released from another key at", entry.released_at_s),
    ] {
        if let Some(at_s) = at_s {
            line.push_str(&format!(", {what} {}", date(at_s)));
        }
    }
    line
}

pub(crate) async fn names(task: NamesTask, place: &Place) -> anyhow::Result<()> {
    let (data_dir, database) = place_of(place)?;
    let mut names = open_names(&data_dir, database).await?;
    let said = match task {
        NamesTask::List { json } => return list(&mut names, |entry| shown(entry, json)).await,
        NamesTask::Show { name, json } => {
            let entry = names.entry(&name).await?;
            let entry = entry.with_context(|| format!("{name} is not registered"))?;
            match (json, entry.key) {
                (false, Some(key)) => format!("{}\nits key is {key}", line(&entry)),
                _ => shown(&entry, json)?,
            }
        }
        NamesTask::Release { name } => match names.release(&name).await? {
            Some(_) => format!("{name} is free. Whoever claims it next has it"),
            None => bail!("{name} is not registered"),
        },
        NamesTask::Ban { name } => match names.ban(&name).await? {
            true => format!("nobody can log in as {name} any more"),
            false => format!("{name} is banned already"),
        },
        NamesTask::Unban { name } => match names.unban(&name).await? {
            true => format!("{name} can be used again"),
            false => bail!("{name} is not banned"),
        },
        NamesTask::Transfer { name, key } => transfer(&mut names, &name, &key).await?,
    };
    writeln!(io::stdout(), "{said}")?;
    Ok(())
}

fn shown(entry: &NameEntry, json: bool) -> anyhow::Result<String> {
    Ok(match json {
        true => serde_json::to_string(&EntryLine::from(entry))?,
        false => line(entry),
    })
}

/// Writes a line for each entry. A reader that has read enough ends it.
async fn list(
    names: &mut Names,
    shown: impl Fn(&NameEntry) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let mut output = BufWriter::new(io::stdout().lock());
    let mut after = String::new();
    loop {
        let entries = names.entries_after(&after).await?;
        for entry in &entries {
            writeln!(output, "{}", shown(entry)?)?;
        }
        match entries.into_iter().last() {
            Some(last) => after = last.name,
            None => return Ok(output.flush()?),
        }
    }
}

async fn transfer(names: &mut Names, name: &PeerName, key: &str) -> anyhow::Result<String> {
    let key = match (key.parse::<PeerKey>(), key.parse::<Fingerprint>()) {
        (Ok(key), _) => key,
        (_, Ok(fingerprint)) => names.key_of(fingerprint).await?.with_context(|| {
            format!(
                "no key with the fingerprint {fingerprint} has a name here; give the key itself"
            )
        })?,
        _ => bail!("{key} is no key, as \"names show\" prints one, and no fingerprint"),
    };
    match names.transfer(name, key).await? {
        Some(_) => Ok(format!("{name} belongs to {} now", key.fingerprint())),
        None => bail!("{name} is not registered"),
    }
}

/// Says what would keep a server with these arguments from working.
pub(crate) async fn check(serve: ServeArguments, open_files: Option<u64>) -> anyhow::Result<()> {
    let path = data_dir_or_default(serve.data_dir.clone())?;
    let database = database(serve.database.as_deref())?;
    let mut problems = Vec::new();
    match inspect(&path, database).await {
        Ok(found) => {
            let (path, names) = (path.display(), found.names.unwrap_or(0));
            let said = match found.key {
                Some(key) => format!("{path} has the key {key} and {names} names"),
                None => format!("{path} has no key yet; the server makes one when it starts"),
            };
            writeln!(io::stdout(), "{said}")?;
            problems.extend(found.problems);
        }
        Err(error) => problems.push(crate::sentence(&error.into())),
    }
    problems.extend(unusable(&serve, is_in_use(&path)));
    problems.extend(too_few(&Limits::from(serve.limits), open_files));
    for problem in &problems {
        eprintln!("pinhole-server: {problem}");
    }
    match problems.len() {
        0 => Ok(writeln!(io::stdout(), "nothing is wrong")?),
        1 => bail!("1 thing is wrong"),
        many => bail!("{many} things are wrong"),
    }
}

/// Addresses that a server with these arguments cannot listen on. One that runs already has
/// them itself.
fn unusable(serve: &ServeArguments, is_running: bool) -> Vec<String> {
    let node = serve.database.as_ref().map(|_| serve.node.node);
    let others = serve.admin.into_iter().chain(node);
    let mut addresses = or_everywhere(&serve.listen).into_owned();
    addresses.extend(others.map(ListenAddress::from));
    let errors = addresses.iter().filter_map(|it| it.try_listen().err());
    errors
        .filter(|error| !(is_running && error.source.kind() == io::ErrorKind::AddrInUse))
        .map(|error| crate::sentence(&error.into()))
        .collect()
}

/// Limits that cannot be reached because of another one.
fn too_few(limits: &Limits, open_files: Option<u64>) -> Vec<String> {
    let mut problems = Vec::new();
    let (people, connections) = (limits.sessions.total, limits.connections.total);
    if people > connections {
        problems.push(format!(
            "--max-people is {people}, and --max-connections only {connections}. Each person \
             needs at least one"
        ));
    }
    if let Some(files) = open_files {
        let possible = limits.clone().within_open_files(files).connections.total;
        // The default fits a large server. Who asks for nothing takes what there is.
        if possible < connections && connections != Limits::default().connections.total {
            problems.push(format!(
                "the limit of open files, {files}, is enough for {possible} connections, and \
                 --max-connections is {connections}. Raise it (ulimit -n, or LimitNOFILE= of the \
                 systemd unit)"
            ));
        }
    }
    problems
}
