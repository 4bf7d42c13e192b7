// Prometheus and promtool, where a machine has none of its own: built from the public module without service discovery
// (`-tags remove_all_sd`) and without its web pages. No source of its own.
module prometheus

go 1.26.7

require github.com/prometheus/prometheus v0.316.0 // indirect
