//! The folder of one queue, in the steps that a power cut can come between.
//!
//! Must not know: what the files hold, when they come and go.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

/// One folder of files.
pub(super) trait Disk: Send {
    /// The names of all files, in no order.
    fn names(&self) -> io::Result<Vec<String>>;
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// A new file, or a new content; the content survives a power cut, the name
    /// only after [`Disk::sync`].
    fn write(&self, name: &str, content: &[u8]) -> io::Result<()>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// What was done to names survives a power cut.
    fn sync(&self) -> io::Result<()>;
    /// The folder itself goes, if it is empty.
    fn remove_folder(&self) -> io::Result<()>;
}

/// All folders of queues.
pub(super) trait Disks: Send + Sync {
    /// One of them; it is made if it is not there.
    fn open(&self, name: &str) -> io::Result<Box<dyn Disk>>;
    /// Their names.
    fn names(&self) -> io::Result<Vec<String>>;
}

/// Folders below this one.
#[derive(Debug)]
pub(super) struct Folders(pub(super) PathBuf);

#[derive(Debug)]
struct Folder(PathBuf);

impl Disks for Folders {
    fn open(&self, name: &str) -> io::Result<Box<dyn Disk>> {
        let folder = self.0.join(name);
        // Events tell what the network looks like: others need not know.
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        // The names of the folders survive a power cut, too.
        for above in self.0.ancestors().take(2).filter(|above| above.is_absolute()) {
            File::open(above)?.sync_all()?;
        }
        Ok(Box::new(Folder(folder)))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        match list(&self.0, |kind| kind.is_dir()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }
}

impl Disk for Folder {
    fn names(&self) -> io::Result<Vec<String>> {
        list(&self.0, |kind| kind.is_file())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(name))
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(self.0.join(name))?;
        file.write_all(content)?;
        file.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn remove_folder(&self) -> io::Result<()> {
        fs::remove_dir(&self.0)
    }
}

fn list(folder: &std::path::Path, wanted: fn(&fs::FileType) -> bool) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if wanted(&entry.file_type()?) {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}
