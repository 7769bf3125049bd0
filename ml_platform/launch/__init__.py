"""How a training job is started, followed and ended: one small protocol, one module a backend."""
