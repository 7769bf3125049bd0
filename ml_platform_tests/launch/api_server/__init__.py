"""A small Kubernetes for tests: real HTTP for the real client, the Job controller's rules, and pods as processes here.

    with ApiServer(folder) as server:
        ...the client, with the kubeconfig server.kubeconfig...

It keeps Jobs, Pods, Services and Events of any namespace. A pod's command runs as a local process in a folder of its
own, under a loopback address of its own in place of its DNS name. What it does not know it refuses with 404.
"""

from ml_platform_tests.launch.api_server.server import ApiServer

__all__ = ["ApiServer"]
