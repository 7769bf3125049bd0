"""Artifacts and their manifests: content-addressed, immutable, committed last."""
