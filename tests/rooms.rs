//! Keeps the arrows of ARCHITECTURE.md true.
