//! Kubernetes quantities (`500m`, `16Gi`, `1e3`) as integers.
