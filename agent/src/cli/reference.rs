//! Pages of the documentation that are generated, so that they stay true.

use clap::ValueEnum;
use headroom::config::profiles;
use headroom::limits;
use headroom::serve::metrics::table;
use headroom::sysctl::catalogue::{self, Entry};

use super::output::Output;
use super::{Color, Exit, Format, OutputFormat};

/// What is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Page {
    Metrics,
    Keys,
    Limits,
    Profiles,
}

pub fn run(page: Page) -> Exit {
    let format = Format { output: OutputFormat::Text, color: Color::Never };
    let text = match page {
        Page::Metrics => table::reference(),
        Page::Keys => keys(),
        Page::Limits => limits::reference(),
        Page::Profiles => profile_page(),
    };
    Output::new(&format).line(text.trim_end());
    Exit::Ok
}

fn keys() -> String {
    let mut text = String::from(
        "# Keys\n\nGenerated from the catalogue that is compiled in; `make docs` brings it up to date. \
         Measured on kernels 5.10 to 7.2. A key that is not listed still works: its shape is learned from \
         its file. `headroom explain KEY` says the same of one key, with its value now.\n\n\
         `*` stands for `all`, `default` and every interface. Scope `host`: one value for the node. New \
         pods: what a network namespace that is created later gets; for `net.ipv4.conf` and `net.ipv6.conf` with \
         `net.core.devconf_inherit_init_net` 0, the default. [Pods](../pods.md) tells what follows.\n\n\
         Takes effect: when the kernel reads the key, where that is not at every use: a change does not reach \
         what runs already. `listen`: programs that listen keep the old value until they are restarted. \
         `socket`: so do sockets that are open, and what a listener accepts. `bind`: a program that was refused \
         must try again. `connection`: connections that exist go on as they began. `interface`: below \
         `conf.default` and `neigh.default`, interfaces take it over when they are created. `(partly)`: the \
         kernel also reads it at every use.\n\n\
         | key | scope | new pods | takes effect | default | notes | purpose |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for entry in catalogue::all() {
        text += &row(&entry);
    }
    text
}

fn row(entry: &Entry) -> String {
    let word = |value: serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    let scope = serde_json::to_value(entry.scope()).map(word).unwrap_or_default();
    let new = serde_json::to_value(entry.new_netns()).map(word).unwrap_or_default();
    let moment = |flag: &&str| flag.starts_with("at-") || *flag == "partly";
    let (moments, flags): (Vec<&str>, Vec<&str>) = entry.flags().partition(moment);
    let at = moments.iter().find_map(|flag| flag.strip_prefix("at-"));
    let partly = if moments.contains(&"partly") { " (partly)" } else { "" };
    let cell = |text: &str| text.replace('|', "\\|");
    format!(
        "| `{}` | {scope} | {new} | {}{partly} | {} | {} | {} |\n",
        entry.key(),
        at.unwrap_or("-"),
        cell(entry.default().unwrap_or("-")),
        flags.join(", "),
        cell(entry.purpose())
    )
}

fn profile_page() -> String {
    let mut text = String::from(
        "# Profiles\n\nGenerated from the profiles that ship with the agent; `make docs` brings it up to \
         date. Every value is a floor: a node that has more keeps it.\n",
    );
    for name in profiles::names() {
        let Some(Ok(profile)) = profiles::get(name) else { continue };
        text += &format!(
            "\n## {name}\n\n{}.\n\n| key | at least | why |\n| --- | --- | --- |\n",
            profile.description
        );
        for (key, policy) in profile.policies() {
            let floor = policy.want.to_string();
            let reason = policy.reason.unwrap_or_default();
            text += &format!("| `{key}` | {} | {reason} |\n", floor.trim_start_matches(">= "));
        }
    }
    text
}
