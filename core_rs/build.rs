//! Compiles `../proto` with protox, so that no `protoc` binary is needed.

use std::{error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from("../proto");
    let mut files: Vec<PathBuf> = fs::read_dir(root.join("shopkeeper/v1"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.sort();
    println!("cargo:rerun-if-changed=../proto/shopkeeper/v1");
    prost_build::Config::new().skip_protoc_run().compile_fds(protox::compile(files, [root])?)?;
    Ok(())
}
