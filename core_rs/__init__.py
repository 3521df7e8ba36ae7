"""Candidates, features, ranking and live state, in Rust; see `_native.pyi` for every name."""

try:
    from core_rs._native import *  # noqa: F403
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("core_rs is not built; run `make develop`") from error
