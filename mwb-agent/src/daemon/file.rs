//! The agent's configuration file, replaced in one step.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Where the former text is kept.
pub(super) fn previous(file: &Path) -> PathBuf {
    beside(file, ".previous")
}

/// Puts `text` in the place of the file: whoever reads it, also after a power
/// cut, finds the old or the new text whole. Owner and rights stay. The former
/// file is kept as [`previous`].
///
/// # Errors
/// When the system refuses; the file is what it was then.
pub(super) fn replace(file: &Path, text: &str) -> io::Result<()> {
    // A link goes on pointing where it did.
    let file = fs::canonicalize(file)?;
    let former = fs::read(&file)?;
    let rights = fs::metadata(&file)?;
    write(&previous(&file), &former, &rights)?;
    write(&file, text.as_bytes(), &rights)
}

fn write(file: &Path, text: &[u8], rights: &fs::Metadata) -> io::Result<()> {
    let new = beside(file, ".new");
    let result = fill(&new, text, rights).and_then(|()| fs::rename(&new, file));
    if result.is_err() {
        // What is left of it helps nobody; that it may not be there is no error.
        let _ = fs::remove_file(&new);
        return result;
    }
    let folder = file.parent().unwrap_or(Path::new("/"));
    File::open(folder)?.sync_all()
}

fn fill(new: &Path, text: &[u8], rights: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
    let _ = fs::remove_file(new);
    let mut options = File::options();
    let mut opened = options.write(true).create_new(true).mode(0o600).open(new)?;
    opened.write_all(text)?;
    let own = opened.metadata()?;
    if (own.uid(), own.gid()) != (rights.uid(), rights.gid()) {
        fchown(&opened, Some(rights.uid()), Some(rights.gid()))?;
    }
    opened.set_permissions(rights.permissions())?;
    opened.sync_all()
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// A folder that goes with this value.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mwb-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("a folder");
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).expect("a folder");
            let name = |entry: io::Result<fs::DirEntry>| {
                entry.expect("an entry").file_name().to_string_lossy().into_owned()
            };
            let mut names: Vec<String> = entries.map(name).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_new_text_takes_the_place_and_the_former_stands_beside() {
        let folder = Folder::new("replace");
        let file = folder.0.join("gateway.yaml");
        fs::write(&file, "one").expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("rights");
        for (text, former) in [("two", "one"), ("three", "two")] {
            replace(&file, text).expect("replaced");
            assert_eq!(fs::read_to_string(&file).expect("a file"), text);
            assert_eq!(fs::read_to_string(previous(&file)).expect("a file"), former);
        }
        for path in [&file, &previous(&file)] {
            let mode = fs::metadata(path).expect("a file").permissions().mode();
            assert_eq!(mode & 0o7777, 0o640, "{}", path.display());
        }
        assert_eq!(folder.names(), ["gateway.yaml", "gateway.yaml.previous"]);
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = Folder::new("link");
        let (real, link) = (folder.0.join("real.yaml"), folder.0.join("link.yaml"));
        fs::write(&real, "one").expect("a file");
        symlink(&real, &link).expect("a link");
        replace(&link, "two").expect("replaced");
        assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
        assert_eq!(fs::read_to_string(&real).expect("a file"), "two");
    }

    #[test]
    fn a_file_that_is_gone_is_an_error_and_nothing_is_made() {
        let folder = Folder::new("gone");
        assert!(replace(&folder.0.join("gateway.yaml"), "text").is_err());
        assert_eq!(folder.names(), [] as [&str; 0]);
    }
}
