//! Looking at the node once, for commands where no agent runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::autogrow::Floors;
use super::bridges;
use super::neighbors::tour;
use super::{Roots, config_state};
use crate::config::load::Loaded;
use crate::config::{Config, HostNetns, Mode};
use crate::kernel::neighbor::{self, Family};
use crate::kernel::netlink::DumpSocket;
use crate::kernel::netns::{self, Kind, Netns};
use crate::kernel::sysctl_file::SysctlTree;
use crate::kernel::{sysctl_d, system};
use crate::limits::autogrow::Growth;
use crate::limits::neighbor::Sampler;
use crate::limits::neighbor::round::round;
use crate::limits::netfilter;
use crate::node::NodeState;
use crate::pods::apply::Plan;
use crate::sysctl::disk::Disk;
use crate::sysctl::engine::Engine;
use crate::sysctl::glob::Subject;
use crate::sysctl::inherit::{self, Devconf, Gets};
use crate::sysctl::key::Key;
use crate::sysctl::ledger::Ledger;
use crate::sysctl::place::{Net, Place};
use crate::sysctl::policy::Source;
use crate::sysctl::state::KeyStatus;

/// An engine over a configuration's keys. `observe`: it only looks. `agent`: what it finds itself in
/// is the node, also where its ledger is of another network namespace.
pub fn engine(
    config: &Config,
    roots: &Roots,
    place: Place,
    observe: bool,
    agent: bool,
) -> Result<Engine, String> {
    let tree = SysctlTree::open(&roots.sysctl, Some(&roots.proc.join("sys")))
        .map_err(|error| error.to_string())?;
    let boot = system::boot_id(&roots.proc).map_err(|error| format!("boot id: {error}"))?;
    let (mut ledger, notice) = Ledger::open(&config.state, &boot);
    let right_place = !matches!(place.net, Net::Wrong(_));
    let here = netns::own(&roots.proc, Kind::Net).ok().filter(|_| right_place);
    let elsewhere = here.and_then(|here| ledger.bind(here.ino, agent));
    let notice = notice.or(elsewhere);
    let mut engine = Engine::new(place, tree, Netns::Own, observe, ledger);
    if let Some(notice) = notice {
        engine.ledger_trouble(&notice);
    }
    let policies = Floors::on_record(&engine, config).policies(config);
    engine.configure(policies, config.globs.clone());
    Ok(engine)
}

/// Directory of pods' ledgers below the state directory.
pub(super) const LEDGERS: &str = "pods";

/// What is the same for all pods' namespaces under a configuration.
pub fn pod_plan(config: &Config, roots: &Roots, kernel: (u32, u32)) -> Result<Plan, String> {
    let tree = SysctlTree::open(&roots.sysctl, Some(&roots.proc.join("sys")))
        .map_err(|error| error.to_string())?;
    Ok(Plan {
        policies: config.pods.clone(),
        observe: config.mode == Mode::Observe,
        tree: Arc::new(tree),
        ledgers: config.state.join(LEDGERS),
        boot: system::boot_id(&roots.proc).map_err(|error| format!("boot id: {error}"))?,
        kernel,
    })
}

/// Where this process finds itself.
#[must_use]
pub fn place(config: &Config, roots: &Roots) -> Place {
    Place::look(&roots.proc, config.host_netns == HostNetns::Current)
}

/// What the host's files set at boot; `root` is where they are.
#[must_use]
pub fn disk(root: Option<&std::path::Path>) -> Disk {
    Disk::of(root.map(sysctl_d::read_all))
}

/// Notes for each key what the host's files set it to at boot, where that is not what is wanted;
/// for a pattern, the first of its keys that they set to something else.
pub fn note_disk(disk: &Disk, config: &Config, keys: &mut [KeyStatus]) {
    for status in keys {
        let now = status.actual.as_deref();
        status.disk = match &status.key {
            Subject::Key(key) => {
                let policy = config.policies.get(key);
                policy.and_then(|policy| disk.conflict(key, &policy.want, now))
            }
            Subject::Glob(glob) => {
                let policy = config.globs.iter().rfind(|(one, _)| one == glob);
                policy.and_then(|(_, policy)| {
                    // A key of its own policy, or of a later pattern's, is not this one's.
                    let meant = |key: &Key| config.policy_of(key) == Some(policy);
                    disk.conflict_of(glob, meant, &policy.want)
                })
            }
        };
    }
}

/// What pods get of each key of a configuration, and what many expect of it that is not so.
pub type InPods = BTreeMap<Subject, (Gets, Option<&'static str>)>;

/// What the catalogue and the kernel say that pods get: nothing is measured.
#[must_use]
pub fn in_pods(config: &Config, roots: &Roots, kernel: (u32, u32)) -> InPods {
    let tree = SysctlTree::open(&roots.sysctl, Some(&roots.proc.join("sys")));
    let devconf = tree.map(|tree| Devconf::read(&tree)).unwrap_or_default();
    let keys = config.policies.iter().map(|(key, policy)| {
        let gets = inherit::expected(key, kernel, devconf);
        let own = matches!(gets, Gets::Own | Gets::Computed);
        let named = || config.pods.iter().any(|pod| pod.policies.contains_key(key));
        // What a profile raises is not what somebody wrote down, and its reason says it.
        let written = matches!(policy.source, Source::Config { .. });
        let mistaken = own && written && inherit::is_of_programs(key) && !named();
        let note = mistaken.then_some("pods have their own: add a pods policy");
        (Subject::Key(key.clone()), (gets, note))
    });
    let globs = config.globs.iter().filter_map(|(glob, _)| {
        let gets = inherit::expected(&glob.example()?, kernel, devconf);
        Some((Subject::Glob(glob.clone()), (gets, None)))
    });
    keys.chain(globs).collect()
}

/// Notes it for each key.
pub fn note_pods(in_pods: &InPods, keys: &mut [KeyStatus]) {
    for status in keys {
        let found = in_pods.get(&status.key);
        status.pods = found.map(|(gets, _)| *gets);
        status.pods_note = found.and_then(|(_, note)| note.map(str::to_owned));
    }
}

/// The picture of this moment.
#[must_use]
pub fn look(loaded: &Loaded, roots: &Roots) -> NodeState {
    let mut state = NodeState::default();
    (state.kernel, state.node) = system::uname();
    state.cpus = system::cpus(&roots.sys);
    state.config = config_state(loaded);
    let place = place(&loaded.config, roots);
    collect(&mut state, "sysctl", |state| {
        // A preview, so that states are those the agent would find; nothing is written.
        let observe = loaded.config.mode == Mode::Observe;
        let mut engine = engine(&loaded.config, roots, place.clone(), observe, false)?;
        engine.preview(Instant::now()).map_err(|error| error.to_string())?;
        let mut keys = engine.status();
        note_disk(&disk(roots.host.as_deref()), &loaded.config, &mut keys);
        note_pods(&in_pods(&loaded.config, roots, place.kernel), &mut keys);
        state.keys = Some(keys);
        state.ledger_notice = engine.ledger_notice().map(str::to_owned);
        Ok(())
    });
    if !matches!(place.net, Net::Wrong(_)) {
        collect(&mut state, "limits", |state| super::limits::look(roots, &loaded.config, state));
        collect(&mut state, "neighbor", |state| look_at_neighbors(state, loaded, roots, &place));
        collect(&mut state, "bridges", |state| look_at_bridges(state, loaded, roots));
        collect(&mut state, "netfilter", |state| {
            let (found, failed) = netfilter::reader::Reader::new(&roots.proc).read();
            state.netfilter = Some(found);
            failed.map_or(Ok(()), Err)
        });
    }
    state.net = Some(place.net);
    state.autogrow = loaded.config.autogrow.map(|rule| Growth {
        rule,
        unavailable: Some("no agent runs".to_owned()),
        tables: Default::default(),
    });
    if !loaded.config.pods.is_empty() {
        let notice = "pods' namespaces are known to a running agent alone";
        state.notices.insert("pods", notice.to_owned());
    }
    state
}

fn collect(
    state: &mut NodeState,
    name: &'static str,
    read: impl FnOnce(&mut NodeState) -> Result<(), String>,
) {
    let started = Instant::now();
    let error = read(state).err();
    state.collected(name, error, started.elapsed());
}

fn look_at_neighbors(
    state: &mut NodeState,
    loaded: &Loaded,
    roots: &Roots,
    place: &Place,
) -> Result<(), String> {
    if place.net == Net::Initial {
        Sampler::new(&roots.proc)
            .sample(&mut state.neighbor, true)
            .map_err(|error| error.to_string())?;
    }
    for (slot, family) in state.neighbor.iter_mut().zip(Family::ALL) {
        let mut socket = DumpSocket::open().map_err(|error| error.to_string())?;
        slot.table = neighbor::table(&mut socket, family).map_err(|error| error.to_string())?;
    }
    let config = &loaded.config;
    let round = round(&tour(roots, config), &config.watch, place.kernel)?;
    state.pod_conntrack = round.conntrack;
    if let Some(trouble) = round.trouble {
        state.notices.insert("neighbor-scan", trouble);
    }
    for (slot, scan) in state.neighbor.iter_mut().zip(round.tables) {
        slot.scan = Some(scan?).filter(|_| slot.entries().is_some());
    }
    Ok(())
}

fn look_at_bridges(state: &mut NodeState, loaded: &Loaded, roots: &Roots) -> Result<(), String> {
    let model = bridges::dump_links().map_err(|error| error.to_string())?;
    let counted = bridges::count(&model, &loaded.config.watch, &roots.sys);
    state.bridges = Some(counted.into_iter().map(|(bridge, _)| bridge).collect());
    Ok(())
}
