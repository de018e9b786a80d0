//! Writes archives in the format that the kernel unpacks into its first root
//! file system (`newc`, Documentation/driver-api/early-userspace/buffer-format.rst).
//! Several archives after one another are one. Knows nothing of what is in them.

use std::collections::BTreeSet;
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
const DEVICE: u32 = 0o020_600;
/// Name of the entry that ends an archive.
const END: &str = "TRAILER!!!";

/// An archive that is being written.
///
/// Paths are taken as of a root where `/bin`, `/sbin`, `/lib` and `/lib64` are
/// links into `/usr`; the directories above an entry are made with it.
#[derive(Debug)]
pub(super) struct Archive<W> {
    out: W,
    inode: u32,
    known: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Begins an archive.
    pub(super) fn new(out: W) -> Self {
        Self { out, inode: 0, known: BTreeSet::new() }
    }

    /// Adds an empty directory, unless it is there.
    pub(super) fn directory(&mut self, path: &str) -> io::Result<()> {
        let path = place(path);
        self.above(&path)?;
        self.make_directory(&path)
    }

    /// Adds a file with its permissions, unless this archive has it.
    pub(super) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.add(path, FILE | (permissions & 0o7777), content, (0, 0))
    }

    /// Adds a symbolic link, unless this archive has something there.
    pub(super) fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.add(path, LINK, target.as_bytes(), (0, 0))
    }

    /// Adds a link in the root itself, where [`place`] would follow it.
    pub(super) fn root_link(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.entry(name, LINK, target.as_bytes(), (0, 0))
    }

    /// Adds a character device.
    pub(super) fn device(&mut self, path: &str, number: (u32, u32)) -> io::Result<()> {
        self.add(path, DEVICE, &[], number)
    }

    /// Whether this archive has an entry there.
    pub(super) fn has(&self, path: &str) -> bool {
        self.known.contains(&place(path))
    }

    /// Ends the archive and gives back what it was written to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry(END, 0, &[], (0, 0))?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn add(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) -> io::Result<()> {
        let path = place(path);
        if self.known.contains(&path) {
            return Ok(());
        }
        self.above(&path)?;
        self.known.insert(path.clone());
        self.entry(&path, mode, content, device)
    }

    fn above(&mut self, path: &str) -> io::Result<()> {
        for (slash, _) in path.match_indices('/') {
            self.make_directory(&path[..slash])?;
        }
        Ok(())
    }

    fn make_directory(&mut self, path: &str) -> io::Result<()> {
        if !path.is_empty() && self.known.insert(path.to_owned()) {
            self.entry(path, DIRECTORY, &[], (0, 0))?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        content: &[u8],
        device: (u32, u32),
    ) -> io::Result<()> {
        let too_big = |_| io::Error::new(io::ErrorKind::FileTooLarge, name.to_owned());
        let size = u32::try_from(content.len()).map_err(too_big)?;
        let name_size = u32::try_from(name.len() + 1).map_err(too_big)?;
        self.inode += 1;
        let mut head = b"070701".to_vec();
        // inode, mode, owner, group, links, time, size, device of the file (two),
        // device that it is (two), size of the name, checksum.
        let (major, minor) = device;
        for field in [self.inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0] {
            write!(head, "{field:08X}")?;
        }
        head.extend_from_slice(name.as_bytes());
        head.push(0);
        pad(&mut head);
        self.out.write_all(&head)?;
        self.out.write_all(content)?;
        self.out.write_all(&[0; 3][..content.len().next_multiple_of(4) - content.len()])
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Where a path lies when `/bin`, `/sbin`, `/lib` and `/lib64` are in `/usr`; no
/// slash at its beginning or end.
fn place(path: &str) -> String {
    let parts: Vec<&str> =
        path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let joined = parts.join("/");
    match parts.first() {
        Some(&("bin" | "sbin" | "lib" | "lib64")) => format!("usr/{joined}"),
        _ => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode and content of every entry.
    fn read(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701", "at {at}");
            let field = |n: usize| {
                let text = String::from_utf8_lossy(&bytes[at + 6 + 8 * n..at + 14 + 8 * n]);
                u32::from_str_radix(&text, 16).unwrap_or(u32::MAX)
            };
            let (mode, size, name) = (field(1), field(6) as usize, field(11) as usize);
            let text = String::from_utf8_lossy(&bytes[at + 110..at + 109 + name]).into_owned();
            let start = (at + 110 + name).next_multiple_of(4);
            entries.push((text, mode, bytes[start..start + size].to_vec()));
            at = (start + size).next_multiple_of(4);
        }
        entries
    }

    #[test]
    fn directories_come_before_what_is_in_them_and_once() -> io::Result<()> {
        let mut archive = Archive::new(Vec::new());
        archive.file("/a/b/one", 0o755, b"hello")?;
        archive.file("a/b/two", 0o644, b"")?;
        archive.directory("/a/b")?;
        archive.file("/a/b/one", 0o600, b"again")?;
        let entries = read(&archive.finish()?);
        let names: Vec<_> = entries.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["a", "a/b", "a/b/one", "a/b/two", END]);
        assert_eq!(entries[0].1, 0o040_755);
        assert_eq!(entries[2], ("a/b/one".into(), 0o100_755, b"hello".to_vec()));
        Ok(())
    }

    #[test]
    fn what_is_in_a_linked_directory_lies_in_usr() -> io::Result<()> {
        let mut archive = Archive::new(Vec::new());
        archive.root_link("bin", "usr/bin")?;
        archive.link("/bin/sh", "bash")?;
        assert!(archive.has("/usr/bin/sh"));
        archive.device("/dev/console", (5, 1))?;
        let entries = read(&archive.finish()?);
        let names: Vec<_> = entries.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["bin", "usr", "usr/bin", "usr/bin/sh", "dev", "dev/console", END]);
        assert_eq!(entries[3].2, b"bash");
        assert_eq!(entries[5].1, 0o020_600);
        Ok(())
    }

    #[test]
    fn every_archive_ends_at_a_multiple_of_four() -> io::Result<()> {
        for length in 0..5 {
            let mut archive = Archive::new(Vec::new());
            archive.file("x", 0o644, &vec![7; length])?;
            assert_eq!(archive.finish()?.len() % 4, 0);
        }
        Ok(())
    }
}
