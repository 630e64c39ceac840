//! Messages, clients and servers generated from `proto/polymetis.proto` (spec `polymetis.md` §2–3).
//!
//! The file has no `package`, so method paths are `/PolymetisControllerServer/SetController` etc.

#![allow(clippy::all, missing_docs)]

tonic::include_proto!("_");
