"""Training as an Indexed Job of a Kubernetes cluster: see docs/kubernetes.md."""
