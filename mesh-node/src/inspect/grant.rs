//! Grants: a JWT (ES256) of the controller for this node, of a minute at most.
//!
//! The key that signed it is in the `x5c` header, certified by the mesh's CA for `spiffe://<trust domain>/tulle/grant` and for
//! nothing else: no workload's certificate can make a grant. Source: RFC 7515 §4.1.6, RFC 7519.

use std::time::{Duration, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use mesh_model::{identity::TrustDomain, name::NodeName};
use rustls_pki_types::{CertificateDer, UnixTime};
use serde::Deserialize;
use webpki::KeyUsage;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    clock::Clock,
    identity::{Roots, uri_names},
};

/// Longer tokens are not looked at.
const LONGEST_TOKEN: usize = 16 << 10;
/// Longer-lived grants are refused.
const LONGEST_LIFE: i64 = 60;
/// The controller's clock may differ from ours by so many seconds.
const LEEWAY: i64 = 60;
/// Leaf and intermediates.
const LONGEST_CHAIN: usize = 4;

/// Why a grant is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GrantError {
    /// There is none.
    #[error("a grant of the controller is needed (authorization: Bearer …)")]
    Missing,
    /// Not a JWT, or one without what a grant has.
    #[error("the grant cannot be read: {0}")]
    Unreadable(String),
    /// Its key is not certified for grants by this mesh.
    #[error("the grant's key is not the controller's: {0}")]
    ForeignKey(String),
    /// The signature or the audience is wrong.
    #[error("the grant is not good for this node: {0}")]
    NotGood(String),
    /// Over, or for too long a time.
    #[error("the grant is expired or lives longer than {LONGEST_LIFE} s")]
    Expired,
}

/// Who was let in.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(super) struct Claims {
    /// Who asked the controller.
    pub(super) sub: String,
    iat: i64,
    exp: i64,
}

/// Judges grants for one node.
pub(super) struct Judge {
    pub(super) node: NodeName,
    pub(super) trust_domain: TrustDomain,
    pub(super) roots: Roots,
    pub(super) clock: Clock,
}

impl Judge {
    /// Checks the token and says who asked.
    pub(super) fn check(&self, token: &str) -> Result<Claims, GrantError> {
        if token.len() > LONGEST_TOKEN {
            return Err(GrantError::Unreadable(format!("longer than {LONGEST_TOKEN} bytes")));
        }
        let unreadable = |error: jsonwebtoken::errors::Error| GrantError::Unreadable(error.to_string());
        let header = jsonwebtoken::decode_header(token).map_err(unreadable)?;
        let chain = header.x5c_der().map_err(unreadable)?.unwrap_or_default();
        let key = self.certified_key(chain)?;
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[self.node.as_str()]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        // Times are judged below, by our clock.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation)
            .map_err(|error| GrantError::NotGood(error.to_string()))?
            .claims;
        let now = self.clock.unix_seconds();
        let is_current = claims.iat <= now + LEEWAY && now <= claims.exp + LEEWAY;
        let is_short = (0..=LONGEST_LIFE).contains(&claims.exp.saturating_sub(claims.iat));
        if is_current && is_short { Ok(claims) } else { Err(GrantError::Expired) }
    }

    fn certified_key(&self, chain: Vec<Vec<u8>>) -> Result<DecodingKey, GrantError> {
        let foreign = |reason: String| GrantError::ForeignKey(reason);
        if chain.len() > LONGEST_CHAIN {
            return Err(foreign(format!("its chain has more than {LONGEST_CHAIN} certificates")));
        }
        let chain: Vec<CertificateDer<'static>> = chain.into_iter().map(CertificateDer::from).collect();
        let (leaf, intermediates) =
            chain.split_first().ok_or_else(|| foreign("it has no certificate".to_owned()))?;
        let now: Duration = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.roots
            .verify(leaf, intermediates, KeyUsage::client_auth(), UnixTime::since_unix_epoch(now))
            .map_err(|error| foreign(error.to_string()))?;
        let expected = format!("spiffe://{}/tulle/grant", self.trust_domain);
        let names = uri_names(leaf).map_err(foreign)?;
        if names != [expected.as_str()] {
            return Err(foreign(format!("its certificate is for {names:?}")));
        }
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|error| foreign(error.to_string()))?;
        Ok(DecodingKey::from_ec_der(&parsed.public_key().subject_public_key.data))
    }
}
