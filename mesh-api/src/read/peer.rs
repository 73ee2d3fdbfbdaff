//! PeerAuthentication -> modes, where None inherits.

use std::collections::BTreeMap;

use mesh_model::mtls::MtlsMode;

use super::value;
use crate::{
    diagnostic::{Code, Findings},
    object::peer_authentication::{Mode, MutualTls, PeerAuthenticationSpec},
};

/// A PeerAuthentication as written.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Modes {
    pub(crate) default: Option<MtlsMode>,
    pub(crate) ports: BTreeMap<u16, Option<MtlsMode>>,
}

/// Reads the modes.
pub(crate) fn read(spec: &PeerAuthenticationSpec, findings: &mut Findings<'_>) -> Modes {
    let has_selector = spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
    if !has_selector && !spec.port_level_mtls.is_empty() {
        let message = "portLevelMtls needs a selector: ports belong to pods";
        findings.add(Code::Invalid, "spec.portLevelMtls", message);
    }
    let mut ports = BTreeMap::new();
    for (text, mtls) in &spec.port_level_mtls {
        let at = format!("spec.portLevelMtls.{text}");
        match value::port_text(text) {
            Ok(port) => drop(ports.insert(port, mode(Some(mtls), &at, findings))),
            Err(problem) => findings.add(Code::Invalid, at, problem),
        }
    }
    Modes { default: mode(spec.mtls.as_ref(), "spec.mtls", findings), ports }
}

fn mode(mtls: Option<&MutualTls>, at: &str, findings: &mut Findings<'_>) -> Option<MtlsMode> {
    match mtls?.mode? {
        Mode::Unset => None,
        Mode::Permissive => Some(MtlsMode::Permissive),
        Mode::Strict => Some(MtlsMode::Strict),
        Mode::Disable => {
            let message = "DISABLE means PERMISSIVE here: enrolled callers always come with mTLS";
            findings.add(Code::WeakMode, format!("{at}.mode"), message);
            Some(MtlsMode::Disable)
        }
    }
}
