//! Grants: what meshctl shows to a node's inspection API. A JWT (ES256) for one node, of one minute, signed with a key whose
//! certificate (from our CA, SPIFFE id `…/tulle/grant`) travels in the `x5c` header.
//!
//! Invariant: the key lives only in memory and is renewed with its certificate; a grant is for one audience.

use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mesh_model::name::NodeName;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    ca::{Authority, CaError, Subject},
    tls::OWN_TTL,
};

/// How long a grant is good for.
const GRANT_TTL: Duration = Duration::from_secs(60);

/// Why there is no grant.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// No certificate for the key.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// The library refused.
    #[error("signing a grant: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
    jti: String,
}

struct GrantKey {
    key: EncodingKey,
    certificate: String,
}

/// Mints grants.
pub struct Granter {
    current: ArcSwap<GrantKey>,
    issuer: String,
}

impl Granter {
    /// A fresh key with its certificate.
    pub fn new(authority: &Authority, now: OffsetDateTime) -> Result<Self, CaError> {
        let issuer = authority.spiffe_id(&Subject::Grant);
        Ok(Self { current: ArcSwap::from_pointee(grant_key(authority, now)?), issuer })
    }

    /// Replaces the key; grants that are out stay good until they expire.
    pub fn renew(&self, authority: &Authority, now: OffsetDateTime) -> Result<(), CaError> {
        self.current.store(std::sync::Arc::new(grant_key(authority, now)?));
        Ok(())
    }

    /// A grant for the inspection API of this node. `subject` is who asked, for the node's log.
    pub fn mint(&self, node: &NodeName, subject: &str, now: OffsetDateTime) -> Result<String, GrantError> {
        let current = self.current.load();
        let issued = now.unix_timestamp();
        let claims = Claims {
            iss: &self.issuer,
            sub: subject,
            aud: node.as_str(),
            iat: issued,
            exp: issued + GRANT_TTL.as_secs() as i64,
            jti: format!("{:032x}", rand::random::<u128>()),
        };
        let mut header = Header::new(Algorithm::ES256);
        header.x5c = Some(vec![current.certificate.clone()]);
        Ok(jsonwebtoken::encode(&header, &claims, &current.key)?)
    }
}

fn grant_key(authority: &Authority, now: OffsetDateTime) -> Result<GrantKey, CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let issued = authority.issue(&Subject::Grant, &key, OWN_TTL, now)?;
    // `x5c` holds standard Base64 of the DER (RFC 7515 §4.1.6): just what stands between PEM's armour.
    let certificate = issued.pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    Ok(GrantKey { key: EncodingKey::from_ec_der(&key.serialize_der()), certificate })
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};
    use mesh_model::identity::TrustDomain;
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_grant_is_for_one_node_and_one_minute_and_its_key_chains_to_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let now = OffsetDateTime::now_utc();
        let authority = Authority::open(directory.path(), TrustDomain::default(), now).unwrap();
        let granter = Granter::new(&authority, now).unwrap();
        let grant = granter.mint(&NodeName::new("node-1"), "admin", now).unwrap();

        let header = jsonwebtoken::decode_header(&grant).unwrap();
        assert_eq!(header.alg, Algorithm::ES256);
        let chain = header.x5c_der().unwrap().unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
        let name =
            certificate.subject_alternative_name().unwrap().unwrap().value.general_names[0].to_string();
        assert_eq!(name, "URI(spiffe://cluster.local/tulle/grant)");
        let (_, root) = x509_parser::parse_x509_certificate(authority.root()).unwrap();
        certificate.verify_signature(Some(root.public_key())).unwrap();

        let key = DecodingKey::from_ec_der(&certificate.public_key().subject_public_key.data);
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&["node-1"]);
        let claims = jsonwebtoken::decode::<Value>(&grant, &key, &validation).unwrap().claims;
        let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
        assert_eq!(life, 60);
        validation.set_audience(&["node-2"]);
        assert!(jsonwebtoken::decode::<Value>(&grant, &key, &validation).is_err());
    }
}
