//! Certificates for the lab's servers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

/// Makes a key and a certificate by openssl, which signs itself; their common name without
/// an ending.
pub(super) fn certificate(folder: &Path, name: &str, until: &str) -> Result<PathBuf> {
    let base = folder.join(name);
    fs::create_dir_all(&base)?;
    let text = format!(
        "[ca]\ndefault_ca = own\n[own]\ndatabase = {0}/index\nserial = {0}/serial\nnew_certs_dir = {0}\n\
         default_md = sha256\npolicy = any\nx509_extensions = extra\n[any]\ncommonName = supplied\n\
         [extra]\nsubjectAltName = DNS:www.example.net\nbasicConstraints = critical,CA:TRUE\n\
         [req]\ndistinguished_name = dn\n[dn]\n",
        base.display()
    );
    fs::write(base.join("index"), "")?;
    fs::write(base.join("serial"), "01\n")?;
    let config = base.join("openssl.cnf");
    fs::write(&config, text)?;
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).output().context("openssl")?;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(())
    };
    let path = |ending: &str| base.with_extension(ending).display().to_string();
    let (key, csr, crt, config) =
        (path("key"), path("csr"), path("crt"), config.display().to_string());
    openssl(&[
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        &key,
        "-out",
        &csr,
        "-subj",
        "/CN=www.example.net",
        "-config",
        &config,
    ])?;
    openssl(&[
        "ca",
        "-batch",
        "-notext",
        "-selfsign",
        "-config",
        &config,
        "-keyfile",
        &key,
        "-in",
        &csr,
        "-out",
        &crt,
        "-startdate",
        "20200101000000Z",
        "-enddate",
        until,
    ])?;
    Ok(base)
}
