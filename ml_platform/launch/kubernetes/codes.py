"""Exit codes of a pod: what the Job's failure policy and a person can tell from the number alone."""

from __future__ import annotations

import signal

from ml_platform.training import preemption

FAILED = 1
"""The model's, the data's or the platform's own fault: trying again would end the same way."""
PREEMPTED = preemption.PREEMPTED
"""Ended from outside: asked to end, or a rank was killed."""
PEER_LOST = 76
"""Another pod of the job has gone, and this one could not go on without it."""

PASSING = (PREEMPTED, PEER_LOST, 128 + signal.SIGKILL, 128 + signal.SIGTERM)
"""The codes after which the Job makes the pod again, as long as its budget lasts."""

TERMINATION_BYTES = 4096
"""What Kubernetes keeps of a container's last words (Container v1, terminationMessagePath)."""
