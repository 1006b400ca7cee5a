//! The page of the documentation about limits.

use super::{ABOUT, About, Cadence, Cost};

/// The reference, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "# Limits\n\nGenerated from the agent's own table; `make docs` brings it up to date. \
         `headroom status --limits` shows what of each is in use, `headroom plan --pods N` what N pods \
         need. [Density](../density.md) shows predictions beside what kernels really did.\n\n\
         A limit that a kernel does not have is left out; what cannot be read is absent from the metrics, \
         never 0, and `headroom status` says why.\n\n\
         | limit | counted for | unit | raised by | when it is hit |\n| --- | --- | --- | --- | --- |\n",
    );
    for about in ABOUT {
        text += &format!(
            "| `{}` | {} | {} | {} | {} |\n",
            about.name,
            cell(about.scope),
            cell(about.unit),
            about.raised_by.map_or("nothing".to_owned(), raised_by),
            cell(about.when_hit)
        );
    }
    text += "\n## What a pod costs\n\n\
             *Fixed*: by the kernel's own rules. *Learned*: seen on the node, from pods that come and go (the \
             median), else from what pods have now (where each one's part is seen, without the tenth that has most); until eight pods run, the prior. A \
             pod never counts as less than the floor. *None*: pods do not use it up one by one, and nothing \
             is foretold.\n\n| limit | a pod | why |\n| --- | --- | --- |\n";
    for about in ABOUT {
        text += &format!("| `{}` | {} | {} |\n", about.name, cost(about), cell(about.cost_why));
    }
    text += "\n## How exact the numbers are\n\n\
             *Exact*: it is the number that the kernel compares with the maximum. *Upper bound*: the kernel's \
             is this or less, so at least as many pods fit as are told. *Lower bound*: the kernel's is this or \
             more. *Estimate*: near it, on either side.\n\n\
             | limit | kernels | `used` is | | read from | when |\n| --- | --- | --- | --- | --- | --- |\n";
    for about in ABOUT {
        for (kernels, exactness, why) in about.exactness {
            text += &format!(
                "| `{}` | {} | {} | {} | {} | {} |\n",
                about.name,
                cell(kernels),
                exactness.words(),
                cell(why),
                cell(about.read),
                match about.cadence {
                    Cadence::Scrape => "at every scrape",
                    Cadence::Slow => "now and then",
                }
            );
        }
    }
    text
}

fn cost(about: &About) -> String {
    match about.cost {
        Cost::Fixed(amount) => format!("{amount}, fixed"),
        Cost::Learned { prior: 0.0, floor } => {
            format!("learned, no prior, floor {floor}")
        }
        Cost::Learned { prior, floor } => format!("learned, prior {prior}, floor {floor}"),
        Cost::NotByPods => "none".to_owned(),
    }
}

fn raised_by(text: &str) -> String {
    match text.contains(' ') {
        true => cell(text),
        false => format!("`{text}`"),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
