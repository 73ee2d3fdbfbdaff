//! Bearer tokens of the directory source: one per Node object, one for the administrator; kept in the state directory (0600).
//!
//! Invariant: memory holds only SHA-256 digests, compared without early exit; a token is never logged, and nothing here has a
//! `Debug` that shows one. A node whose object is gone has no valid token, though its file stays: the object may come back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use mesh_model::name::NodeName;
use sha2::{Digest, Sha256};

use crate::files::{self, FileError, Readers};

/// Characters in a fresh token: 256 random bits in hexadecimal.
const TOKEN_CHARACTERS: usize = 64;
/// No token that we compare is longer.
const MAX_TOKEN_BYTES: usize = 4096;

/// Why tokens cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The state directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// Somebody cut it.
    #[error("{0}: not a token of {TOKEN_CHARACTERS} characters; remove the file to get a new one")]
    Damaged(PathBuf),
    /// A name that cannot be a file's.
    #[error("node name {0:?} is not a DNS name")]
    NodeName(NodeName),
}

#[derive(Clone, PartialEq, Eq)]
struct TokenDigest([u8; 32]);

impl TokenDigest {
    fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Looks at every byte, whatever the first ones say.
    fn matches(&self, other: &Self) -> bool {
        let difference = self.0.iter().zip(&other.0).fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(difference) == 0
    }
}

/// Who may call, by token.
#[derive(Clone, Default)]
pub struct Tokens {
    admin: Option<TokenDigest>,
    nodes: BTreeMap<NodeName, TokenDigest>,
}

impl Tokens {
    /// The node whose token this is.
    pub fn node(&self, token: &str) -> Option<NodeName> {
        let digest = digest(token)?;
        let mut found = None;
        for (node, known) in &self.nodes {
            if known.matches(&digest) {
                found = Some(node.clone());
            }
        }
        found
    }

    /// Whether this is the administrator's.
    pub fn is_admin(&self, token: &str) -> bool {
        match (digest(token), &self.admin) {
            (Some(digest), Some(admin)) => admin.matches(&digest),
            _ => false,
        }
    }

    /// Whether they have been read at all.
    pub fn is_loaded(&self) -> bool {
        self.admin.is_some()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("nodes", &self.nodes.keys()).finish_non_exhaustive()
    }
}

fn digest(token: &str) -> Option<TokenDigest> {
    (!token.is_empty() && token.len() <= MAX_TOKEN_BYTES).then(|| TokenDigest::of(token))
}

/// The tokens' files.
#[derive(Clone, Debug)]
pub struct TokenFiles {
    directory: PathBuf,
}

impl TokenFiles {
    /// Tokens in this state directory.
    pub fn new(state: &Path) -> Self {
        Self { directory: state.to_owned() }
    }

    /// The tokens of these nodes and the administrator's, making those that are not there. Nodes that cannot have one are left
    /// out and named.
    pub fn load(&self, nodes: &BTreeSet<NodeName>) -> Result<(Tokens, Vec<TokenError>), TokenError> {
        let mut tokens = Tokens {
            admin: Some(load_or_create(&self.directory.join("admin.token"))?),
            nodes: BTreeMap::new(),
        };
        let directory = self.directory.join("nodes");
        files::private_directory(&directory)?;
        let mut refused = Vec::new();
        for node in nodes {
            if !is_dns_name(node.as_str()) {
                refused.push(TokenError::NodeName(node.clone()));
                continue;
            }
            match load_or_create(&directory.join(format!("{node}.token"))) {
                Ok(digest) => drop(tokens.nodes.insert(node.clone(), digest)),
                Err(error) => refused.push(error),
            }
        }
        Ok((tokens, refused))
    }
}

fn load_or_create(path: &Path) -> Result<TokenDigest, TokenError> {
    if let Some(text) = files::read(path)? {
        let token = text.trim_end();
        let whole = token.len() == TOKEN_CHARACTERS && token.bytes().all(|byte| byte.is_ascii_hexdigit());
        return whole.then(|| TokenDigest::of(token)).ok_or_else(|| TokenError::Damaged(path.to_owned()));
    }
    let bytes: [u8; TOKEN_CHARACTERS / 2] = rand::random();
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    files::write(path, token.as_bytes(), Readers::Owner)?;
    Ok(TokenDigest::of(&token))
}

/// RFC 1123 subdomain, as Kubernetes demands of a node's name: so it is a safe file name too.
fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<NodeName> {
        names.iter().map(|name| NodeName::new(*name)).collect()
    }

    #[test]
    fn each_node_has_its_own_and_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let files = TokenFiles::new(directory.path());
        let (first, refused) = files.load(&names(&["a", "b"])).unwrap();
        assert!(refused.is_empty());
        let token = std::fs::read_to_string(directory.path().join("nodes/a.token")).unwrap();
        let admin = std::fs::read_to_string(directory.path().join("admin.token")).unwrap();
        assert_eq!(first.node(&token), Some(NodeName::new("a")));
        assert_eq!(first.node(&admin), None);
        assert!(first.is_admin(&admin) && !first.is_admin(&token));
        assert!(!first.is_admin("") && first.node("").is_none());
        let (again, _) = files.load(&names(&["a"])).unwrap();
        assert_eq!(again.node(&token), Some(NodeName::new("a")));
        assert!(!files::is_exposed(&directory.path().join("nodes/a.token")).unwrap());
    }

    #[test]
    fn a_node_that_is_gone_has_no_token() {
        let directory = tempfile::tempdir().unwrap();
        let files = TokenFiles::new(directory.path());
        files.load(&names(&["a"])).unwrap();
        let token = std::fs::read_to_string(directory.path().join("nodes/a.token")).unwrap();
        let (none, _) = files.load(&names(&[])).unwrap();
        assert_eq!(none.node(&token), None);
    }

    #[test]
    fn names_that_are_paths_and_cut_tokens_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let files = TokenFiles::new(directory.path());
        std::fs::create_dir_all(directory.path().join("nodes")).unwrap();
        std::fs::write(directory.path().join("nodes/cut.token"), "abc").unwrap();
        let (tokens, refused) = files.load(&names(&["../evil", "", "cut", "fine"])).unwrap();
        assert_eq!(refused.len(), 3);
        assert_eq!(tokens.nodes.keys().map(NodeName::as_str).collect::<Vec<_>>(), ["fine"]);
    }
}
