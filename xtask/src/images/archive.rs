//! An OCI image as one tar file that `ctr images import`, `docker load` and `skopeo` take.
//!
//! Same input, same bytes: entries in a fixed order, no times, no owners, no compression, JSON with sorted keys. One layer, because
//! an image here is one static program.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, DescriptorBuilder, ImageConfigurationBuilder, ImageIndex,
    ImageIndexBuilder, ImageManifestBuilder, MediaType, Os, RootFsBuilder, Sha256Digest,
};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// The annotation by which containerd names what it imports.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The annotation by which everybody else finds the tag.
const OCI_NAME: &str = "org.opencontainers.image.ref.name";
const INDEX: &str = "index.json";
const LARGEST_INDEX: u64 = 64 * 1024;

/// What an image holds, and how it is started.
pub struct Image {
    /// Registry, repository and tag.
    pub name: String,
    /// Where the program stands in the image; also how the image is started.
    pub program: String,
    /// A second name of the program, in a folder of its own or the same.
    pub alias: Option<String>,
    /// The program itself.
    pub content: Vec<u8>,
    /// Who runs it: uid and gid.
    pub user: u32,
}

impl Image {
    /// Writes the archive and returns the digest by which a container runtime knows the image.
    pub fn write(&self, to: &Path) -> Result<String> {
        let layer = self.layer()?;
        let layer = Blob::new(MediaType::ImageLayer, layer)?;
        let config = Blob::of(MediaType::ImageConfig, &self.config(&layer.digest())?)?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .config(config.descriptor.clone())
            .layers(vec![layer.descriptor.clone()])
            .build()?;
        let manifest = Blob::of(MediaType::ImageManifest, &manifest)?;
        let index = self.index(&manifest.descriptor)?;
        // What older readers look at: docker-archive, which knows nothing of indexes.
        let docker = serde_json::json!([{
            "Config": config.path(), "RepoTags": [self.name], "Layers": [layer.path()],
        }]);

        let mut tar = Tar::default();
        tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        tar.file(INDEX, 0o644, &json(&index)?)?;
        tar.file("manifest.json", 0o644, &json(&docker)?)?;
        tar.folder("blobs/", 0o755)?;
        tar.folder("blobs/sha256/", 0o755)?;
        let mut blobs = [&layer, &config, &manifest];
        blobs.sort_by_key(|blob| blob.path());
        for blob in blobs {
            tar.file(&blob.path(), 0o644, &blob.content)?;
        }
        // Whoever looks at this path sees the old archive or the new one.
        let partial = to.with_extension("partial");
        fs::write(&partial, tar.finish()?)
            .and_then(|()| fs::rename(&partial, to))
            .with_context(|| format!("cannot write {}", to.display()))?;
        Ok(manifest.digest())
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let user = self.user;
        let mut people = String::from("root:x:0:0:root:/:/sbin/nologin\n");
        let mut groups = String::from("root:x:0:\n");
        if user != 0 {
            people.push_str(&format!("nonroot:x:{user}:{user}:nonroot:/:/sbin/nologin\n"));
            groups.push_str(&format!("nonroot:x:{user}:\n"));
        }
        let mut tar = Tar::default();
        tar.folder("etc/", 0o755)?;
        tar.file("etc/group", 0o644, groups.as_bytes())?;
        tar.file("etc/passwd", 0o644, people.as_bytes())?;
        tar.folder("tmp/", 0o1777)?;
        let mut folder = String::new();
        let path = self.program.trim_start_matches('/');
        let (parents, _) = path.rsplit_once('/').unwrap_or_default();
        for part in parents.split('/').filter(|part| !part.is_empty()) {
            folder.push_str(&format!("{part}/"));
            tar.folder(&folder, 0o755)?;
        }
        tar.file(path, 0o755, &self.content)?;
        if let Some(alias) = &self.alias {
            tar.link(alias.trim_start_matches('/'), &self.program)?;
        }
        tar.finish()
    }

    fn config(&self, layer: &str) -> Result<impl Serialize> {
        let config = ConfigBuilder::default()
            .user(format!("{0}:{0}", self.user))
            .env(vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()])
            .entrypoint(vec![self.program.clone()])
            .working_dir("/".to_owned())
            .build()?;
        let root = RootFsBuilder::default().typ("layers").diff_ids(vec![layer.to_owned()]).build()?;
        let configuration = ImageConfigurationBuilder::default()
            .architecture(Arch::default())
            .os(Os::Linux)
            .config(config)
            .rootfs(root)
            .history(Vec::new())
            .build()?;
        Ok(configuration)
    }

    fn index(&self, manifest: &Descriptor) -> Result<ImageIndex> {
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let names = HashMap::from([
            (CONTAINERD_NAME.to_owned(), self.name.clone()),
            (OCI_NAME.to_owned(), tag.to_owned()),
        ]);
        let mut manifest = manifest.clone();
        manifest.set_annotations(Some(names));
        let index = ImageIndexBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageIndex)
            .manifests(vec![manifest])
            .build()?;
        Ok(index)
    }
}

/// Name and digest of the image in an archive that [`Image::write`] wrote.
pub fn identity(archive: &Path) -> Result<(String, String)> {
    let told = || format!("{} is not an image archive", archive.display());
    let file = File::open(archive).with_context(|| format!("cannot open {}", archive.display()))?;
    for entry in tar::Archive::new(file).entries().with_context(told)? {
        let entry = entry.with_context(told)?;
        if entry.path()?.as_os_str() != INDEX {
            continue;
        }
        let index: ImageIndex = serde_json::from_reader(entry.take(LARGEST_INDEX)).with_context(told)?;
        let Some(manifest) = index.manifests().first() else { break };
        let name = manifest.annotations().as_ref().and_then(|all| all.get(CONTAINERD_NAME));
        return Ok((name.with_context(told)?.clone(), manifest.digest().to_string()));
    }
    bail!(told())
}

/// A piece of content, named by its digest.
struct Blob {
    descriptor: Descriptor,
    content: Vec<u8>,
}

impl Blob {
    fn new(kind: MediaType, content: Vec<u8>) -> Result<Self> {
        let hex: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        let digest: Sha256Digest = hex.parse()?;
        let size = u64::try_from(content.len())?;
        let descriptor = DescriptorBuilder::default().media_type(kind).size(size).digest(digest).build()?;
        Ok(Self { descriptor, content })
    }

    fn of(kind: MediaType, document: &impl Serialize) -> Result<Self> {
        Self::new(kind, json(document)?)
    }

    fn digest(&self) -> String {
        self.descriptor.digest().to_string()
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.descriptor.digest().digest())
    }
}

/// JSON with sorted keys: a `Value` sorts them, a `HashMap` would come in another order each time.
fn json(document: &impl Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(&serde_json::to_value(document)?)?)
}

/// A tar in memory whose entries carry nothing that differs from one day to the next.
struct Tar(tar::Builder<Vec<u8>>);

impl Default for Tar {
    fn default() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
}

impl Tar {
    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(path, mode, tar::EntryType::Regular, content)
    }

    fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        self.entry(path, mode, tar::EntryType::Directory, &[])
    }

    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = plain(tar::EntryType::Symlink, 0o777);
        self.0.append_link(&mut header, path, target).with_context(|| format!("cannot add {path} to a tar"))
    }

    fn entry(&mut self, path: &str, mode: u32, kind: tar::EntryType, content: &[u8]) -> Result<()> {
        let mut header = plain(kind, mode);
        header.set_size(u64::try_from(content.len())?);
        self.0.append_data(&mut header, path, content).with_context(|| format!("cannot add {path} to a tar"))
    }

    fn finish(self) -> Result<Vec<u8>> {
        self.0.into_inner().context("cannot finish a tar")
    }
}

/// A header without owner and time.
fn plain(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(content: &str) -> Image {
        Image {
            name: "docker.io/tulle/hello:1".to_owned(),
            program: "/usr/bin/hello".to_owned(),
            alias: None,
            content: content.as_bytes().to_vec(),
            user: 65532,
        }
    }

    #[test]
    fn the_same_program_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let path = folder.path().join(name);
            let digest = image(content).write(&path).unwrap();
            (digest, fs::read(path).unwrap())
        };
        let first = write("a.tar", "x");
        assert_eq!(first, write("b.tar", "x"));
        assert_ne!(first.0, write("c.tar", "y").0);
    }

    #[test]
    fn an_archive_tells_what_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let digest = image("x").write(&path).unwrap();
        assert_eq!(identity(&path).unwrap(), ("docker.io/tulle/hello:1".to_owned(), digest));
        fs::write(&path, "no tar").unwrap();
        assert!(identity(&path).is_err());
    }

    #[test]
    fn the_layer_holds_the_program_and_its_user() {
        let layer = image("x").layer().unwrap();
        let mut archive = tar::Archive::new(layer.as_slice());
        let paths: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(paths, ["etc/", "etc/group", "etc/passwd", "tmp/", "usr/", "usr/bin/", "usr/bin/hello"]);
    }

    #[test]
    fn an_alias_is_a_link_to_the_program() {
        let aliased = Image { alias: Some("/usr/bin/greet".to_owned()), ..image("x") };
        let layer = aliased.layer().unwrap();
        let mut archive = tar::Archive::new(layer.as_slice());
        let last = archive.entries().unwrap().last().unwrap().unwrap();
        assert_eq!(last.path().unwrap().to_string_lossy(), "usr/bin/greet");
        assert_eq!(last.link_name().unwrap().unwrap().to_string_lossy(), "/usr/bin/hello");
    }
}
