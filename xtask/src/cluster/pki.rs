//! The certificates of the test cluster: one authority, and one certificate for each who speaks.
//!
//! Names decide rights: Kubernetes reads the user from the common name and the group from the organisation. Keys are made by `up`,
//! readable by root only, and removed by `down`. The serial numbers are random, so no two clusters are confused.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::elliptic_curve::rand_core::OsRng;
use p256::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyUsagePurpose, SanType, SerialNumber,
};
use sha2::{Digest, Sha256};

use super::layout::{self, NODES, Node};

/// The key that signs the tokens of service accounts, and its public half.
pub const TOKENS: &str = "tokens";
/// The authority's name.
pub const AUTHORITY: &str = "ca";

/// Who a certificate is for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The name of its files.
    pub file: String,
    /// The common name: the user, in Kubernetes.
    pub user: String,
    /// The organisation: the group, in Kubernetes.
    pub group: Option<&'static str>,
    /// DNS names and addresses under which it serves; none for a client.
    pub serves: Vec<String>,
}

/// Everybody who has a certificate.
pub fn identities() -> Vec<Identity> {
    let client = |file: &str, user: &str, group: Option<&'static str>| Identity {
        file: file.to_owned(),
        user: user.to_owned(),
        group,
        serves: Vec::new(),
    };
    let mut all = vec![
        Identity {
            file: "apiserver".to_owned(),
            user: "kube-apiserver".to_owned(),
            group: None,
            serves: [
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                &format!("kubernetes.default.svc.{}", layout::DOMAIN),
                layout::KUBERNETES_SERVICE,
                layout::CONTROL,
            ]
            .map(str::to_owned)
            .to_vec(),
        },
        client("apiserver-kubelet", "kube-apiserver-kubelet-client", Some("system:masters")),
        client("admin", "kubernetes-admin", Some("system:masters")),
        client("controller-manager", "system:kube-controller-manager", None),
        client("scheduler", "system:kube-scheduler", None),
        client("kube-proxy", "system:kube-proxy", None),
    ];
    for node in NODES {
        let user = format!("system:node:{}", node.name());
        all.push(client(&kubelet_client(node), &user, Some("system:nodes")));
        all.push(Identity {
            file: kubelet_server(node),
            user,
            group: Some("system:nodes"),
            serves: vec![node.name(), node.address()],
        });
    }
    all
}

/// The certificate with which a node's kubelet speaks to the API server.
pub fn kubelet_client(node: Node) -> String {
    format!("{}-client", node.name())
}

/// The certificate with which a node's kubelet serves logs and exec.
pub fn kubelet_server(node: Node) -> String {
    format!("{}-server", node.name())
}

/// Makes all keys and certificates, unless they are there. They appear together or not at all.
pub fn ensure() -> Result<()> {
    let folder = layout::pki();
    if folder.is_dir() {
        return Ok(());
    }
    let partial = folder.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    write_all(&partial)?;
    fs::rename(&partial, &folder).with_context(|| format!("cannot make {}", folder.display()))
}

fn write_all(folder: &Path) -> Result<()> {
    let authority = authority()?;
    let key = Key::random()?;
    let certificate = authority.self_signed(&key)?;
    write(folder, &format!("{AUTHORITY}.crt"), &certificate.pem())?;
    write(folder, &format!("{AUTHORITY}.key"), &key.private_pem()?)?;
    let issuer = Issuer::new(authority, key);
    for identity in identities() {
        let key = Key::random()?;
        let certificate = certificate_of(&identity)?.signed_by(&key, &issuer)?;
        write(folder, &format!("{}.crt", identity.file), &certificate.pem())?;
        write(folder, &format!("{}.key", identity.file), &key.private_pem()?)?;
    }
    let tokens = Key::random()?;
    write(folder, &format!("{TOKENS}.pub"), &tokens.public_pem()?)?;
    write(folder, &format!("{TOKENS}.key"), &tokens.private_pem()?)
}

fn authority() -> Result<CertificateParams> {
    let mut params = common("tulle-test-cluster", None)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn certificate_of(identity: &Identity) -> Result<CertificateParams> {
    let mut params = common(&identity.user, identity.group)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if !identity.serves.is_empty() {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    }
    for name in &identity.serves {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn common(user: &str, group: Option<&str>) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    // A new authority has a new identifier: a client never mistakes one cluster's for another's.
    let random = Key::random()?.point;
    let digest = Sha256::digest(&random);
    params.serial_number = Some(SerialNumber::from_slice(&digest[..16]));
    params.key_identifier_method = KeyIdMethod::PreSpecified(digest[..20].to_vec());
    Ok(params)
}

/// A key of ECDSA on P-256. rcgen brings keys of its own only with a crypto library written in C.
struct Key {
    secret: SigningKey,
    /// The public half, as X.509 carries it.
    point: Vec<u8>,
}

impl Key {
    fn random() -> Result<Self> {
        let secret = SigningKey::random(&mut OsRng);
        let point = secret.verifying_key().to_encoded_point(false).as_bytes().to_vec();
        Ok(Self { secret, point })
    }

    fn private_pem(&self) -> Result<String> {
        Ok(self.secret.to_pkcs8_pem(LineEnding::LF).context("a key cannot be written")?.to_string())
    }

    fn public_pem(&self) -> Result<String> {
        self.secret.verifying_key().to_public_key_pem(LineEnding::LF).context("a key cannot be written")
    }
}

impl rcgen::PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: Signature = self.secret.sign(message);
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kubelet_is_the_node_that_it_says() {
        let all = identities();
        for node in NODES {
            let client = all.iter().find(|identity| identity.file == kubelet_client(node)).unwrap();
            assert_eq!(client.user, format!("system:node:{}", node.name()));
            assert_eq!(client.group, Some("system:nodes"));
            let server = all.iter().find(|identity| identity.file == kubelet_server(node)).unwrap();
            assert!(server.serves.contains(&node.address()));
        }
    }

    #[test]
    fn only_the_administrator_and_the_api_server_may_do_everything() {
        let masters = |identity: &&Identity| identity.group == Some("system:masters");
        let files: Vec<String> =
            identities().iter().filter(masters).map(|identity| identity.file.clone()).collect();
        assert_eq!(files, ["apiserver-kubelet", "admin"]);
    }

    #[test]
    fn everybody_has_files_and_nobody_else_may_read_them() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        write_all(folder.path()).unwrap();
        for file in identities().iter().map(|identity| identity.file.as_str()).chain([AUTHORITY]) {
            for ending in ["crt", "key"] {
                let path = folder.path().join(format!("{file}.{ending}"));
                assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o077, 0);
            }
        }
        let public = fs::read_to_string(folder.path().join("tokens.pub")).unwrap();
        assert!(public.starts_with("-----BEGIN PUBLIC KEY-----"));
    }
}
