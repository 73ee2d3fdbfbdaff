//! `selector.matchLabels` of policies.

use crate::{
    diagnostic::{Code, Findings},
    object::istio::WorkloadSelector,
};

/// Checks the labels.
pub(crate) fn check(selector: Option<&WorkloadSelector>, findings: &mut Findings<'_>) {
    for (key, value) in selector.into_iter().flat_map(|selector| &selector.match_labels) {
        if let Err(problem) = check_label(key, value) {
            findings.add(Code::Invalid, format!("spec.selector.matchLabels[{key:?}]"), problem);
        }
    }
}

/// The selector to go by; None: no condition. A policy that fails closed is not held back by labels that no pod can have.
pub(crate) fn of(selector: Option<&WorkloadSelector>, is_closed: bool) -> Option<&WorkloadSelector> {
    selector.filter(|selector| {
        let is_sound = || selector.match_labels.iter().all(|(key, value)| check_label(key, value).is_ok());
        !selector.match_labels.is_empty() && (!is_closed || is_sound())
    })
}

fn check_label(key: &str, value: &str) -> Result<(), &'static str> {
    if key.is_empty() {
        return Err("a label's name is empty");
    }
    if key.contains('*') || value.contains('*') {
        return Err("wildcards are not allowed in selectors");
    }
    Ok(())
}
