//! A libnvidia-ml.so.1 driven by a profile.
