//! Messages of `proto/shopkeeper/v1`, generated at build.

#![expect(clippy::all, clippy::pedantic, reason = "generated from documented protos")]

include!(concat!(env!("OUT_DIR"), "/shopkeeper.v1.rs"));
