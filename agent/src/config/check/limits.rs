//! Judging what the document says about limits.

use super::super::Limits;
use super::super::cidr::Cidr;
use super::super::de::Spanned;
use super::super::document::{LimitsSpec, MaxPodsSpec, PodRangeSpec};
use super::super::problem::{Position, Problem, Problems, push_index};

/// A hundred times what Kubernetes is tested with on one node: more is a slip.
const MOST_PODS: u64 = 100_000;

/// A node has one range a family, or a few.
const MOST_RANGES: usize = 16;

/// A wider range is not one node's.
const WIDEST: u8 = 8;

/// What limits pods beside the kernel.
pub fn limits(spec: &LimitsSpec, problems: &mut Problems) -> Limits {
    let max_pods = match spec.max_pods.value {
        MaxPodsSpec::Auto => None,
        MaxPodsSpec::Pods(pods) => Some(pods),
    };
    let reserve = u64::from(spec.reserve.value);
    if max_pods.is_some_and(|pods| !(1..=MOST_PODS).contains(&pods)) {
        let message = format!("a node runs 1 to {MOST_PODS} pods, and `auto` asks the kubelet");
        let problem = Problem::error("value", message);
        problems.push(problem.at(spec.max_pods.at).path("limits.maxPods"));
    } else if reserve >= max_pods.unwrap_or(MOST_PODS) {
        let message = match max_pods {
            Some(pods) => format!("no pod would fit: of {pods} fewer are kept free"),
            None => format!("fewer than {MOST_PODS} pods are kept free"),
        };
        let problem = Problem::error("value", message);
        problems.push(problem.at(spec.reserve.at).path("limits.reserve"));
    }
    Limits { max_pods, reserve, pod_range: pod_range(&spec.pod_range, problems) }
}

fn pod_range(spec: &Spanned<PodRangeSpec>, problems: &mut Problems) -> Option<Vec<Cidr>> {
    let mut path = "limits.podRange".to_owned();
    let texts: Vec<(&str, Position)> = match &spec.value {
        PodRangeSpec::Auto => return None,
        PodRangeSpec::One(text) => vec![(text, spec.at)],
        PodRangeSpec::Many(texts) => texts.iter().map(|text| (text.as_str(), text.at)).collect(),
    };
    if texts.is_empty() || texts.len() > MOST_RANGES {
        let message = format!("write `auto`, or 1 to {MOST_RANGES} ranges");
        problems.push(Problem::error("value", message).at(spec.at).path(path));
        return None;
    }
    let single = matches!(spec.value, PodRangeSpec::One(_));
    let mut ranges: Vec<Cidr> = Vec::new();
    for (index, (text, at)) in texts.into_iter().enumerate() {
        match range(text, &ranges) {
            Ok(range) => ranges.push(range),
            Err(why) => {
                if !single {
                    path = "limits.podRange".to_owned();
                    push_index(&mut path, index);
                }
                problems.push(Problem::error("value", why).at(at).path(&path));
            }
        }
    }
    Some(ranges)
}

fn range(text: &str, earlier: &[Cidr]) -> Result<Cidr, String> {
    let range = Cidr::parse(text).map_err(|error| error.to_string())?;
    if range.prefix() < WIDEST {
        return Err(format!("one node's pods do not have so many addresses: from /{WIDEST} on"));
    }
    let inside = |one: Cidr, other: Cidr| one.contains(other.first());
    match earlier.iter().find(|other| inside(range, **other) || inside(**other, range)) {
        Some(other) => Err(format!("its addresses are also those of {other}: keep one of them")),
        None => Ok(range),
    }
}
